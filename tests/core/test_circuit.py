import pytest

from tinkex_proxy.core.circuit import TRANSITIONS, Force, State


def test_every_state_has_a_row_and_none_leads_to_itself() -> None:
    """Adding a state without saying how to leave it fails here."""
    assert set(TRANSITIONS) == set(State)
    assert all(before not in afters for before, afters in TRANSITIONS.items())


@pytest.mark.parametrize("state", State)
def test_an_operator_can_bring_it_from_any_state_to_any_that_may_be_forced(state) -> None:
    forced = {State.FORCED_OPEN, State.DISABLED, State.CLOSED}
    assert len(forced) == len(Force)
    assert forced - {state} <= TRANSITIONS[state]


def test_only_a_breaker_that_follows_its_upstream_trips_or_probes() -> None:
    assert {before for before, afters in TRANSITIONS.items() if State.OPEN in afters} == {
        State.CLOSED,
        State.HALF_OPEN,
    }
    assert {before for before, afters in TRANSITIONS.items() if State.HALF_OPEN in afters} == {
        State.OPEN,
        State.FORCED_OPEN,
    }
