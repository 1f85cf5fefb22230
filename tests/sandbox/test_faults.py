"""The description of faults: what it can say, and how it refuses what cannot be meant."""

import pytest

from tinkex_proxy.sandbox.faults import KINDS, PATHS, BadFault, Expire, Paused, Reset
from tinkex_proxy.sandbox.plans import read_fault


def test_every_name_of_paths_covers_only_calls_of_the_api() -> None:
    assert all(one.startswith("/api/") for patterns in PATHS.values() for one in patterns)


def test_every_kind_is_known_by_its_name() -> None:
    names = ["latency", "error", "reset", "lost", "duplicate", "slow", "paused", "expire"]
    assert list(KINDS) == names


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("outage", "kind is 'outage'; it is one of latency, error, reset"),
        ("error:503", "'503' is not NAME=VALUE"),
        ("error:state=5", "error has no 'state'; it has count, every_s"),
        ("error:status=x", r"error: Expected `int`, got `str` - at `\$.status`"),
        ("error:status=200", "status is 200; it must be between 400 and 599"),
        ("error:retry_after_s=-1", r"retry_after_s is -1.0; it must be at least 0"),
        ("error:rate=5", "rate is 5.0; it must be between 0 and 1"),
        ("error:rate=nan", "rate is nan; it must be between 0 and 1"),
        ("error:count=0", "count is 0; it must be at least 1"),
        ("error:from_s=-1", "from_s is -1.0; it must be at least 0"),
        ("error:from_s=inf", "from_s is inf; it must be at least 0"),
        ("error:for_s=0", "for_s is 0.0; it must be more than 0"),
        ("error:every_s=5", "every_s is 5.0; it must be longer than for_s, which it needs"),
        ("error:for_s=5,every_s=5", "every_s is 5.0; it must be longer than for_s"),
        ("error:path=poll", "path is 'poll'; it must be one of all, training, submits, polls"),
        ("reset:when=later", r"reset: Invalid enum value 'later' - at `\$.when`"),
        ("latency", "delay_s is 0; it must be more than 0, or jitter_s has to be"),
        ("latency:delay_s=-1", "delay_s is -1.0; it must be at least 0"),
        ("lost:hold_s=0", "hold_s is 0.0; it must be more than 0"),
        ("slow", "slow: Object missing required field `bytes_per_s`"),
        ("slow:bytes_per_s=0", "bytes_per_s is 0.0; it must be more than 0"),
        ("slow:bytes_per_s=9,body=x", r"slow: Invalid enum value 'x' - at `\$.body`"),
        ("duplicate:lag_s=-1", "lag_s is -1.0; it must be at least 0"),
        ("paused:hold_s=-1", "hold_s is -1.0; it must be at least 0"),
        ("paused:state=active", "Invalid enum value 'active'"),
    ],
)
def test_a_bad_fault_is_refused_by_field_and_remedy(text: str, said: str) -> None:
    with pytest.raises(BadFault, match=said):
        read_fault(text)


@pytest.mark.parametrize(
    ("path", "covered", "not_covered"),
    [
        ("all", ["/api/v1/asample", "/api/v1/healthz"], ["/sandbox/faults"]),
        ("training", ["/api/v1/forward", "/api/v1/optim_step"], ["/api/v1/asample"]),
        ("submits", ["/api/v1/save_weights_for_sampler"], ["/api/v1/retrieve_future"]),
        ("polls", ["/api/v1/retrieve_future"], ["/api/v1/forward_backward"]),
        ("heartbeats", ["/api/v1/session_heartbeat"], ["/api/v1/create_session"]),
        ("/api/v1/forw*", ["/api/v1/forward", "/api/v1/forward_backward"], ["/api/v1/asample"]),
        ("polls+/api/v1/asample", ["/api/v1/retrieve_future", "/api/v1/asample"], ["/api/v1/x"]),
    ],
)
def test_a_fault_is_about_the_requests_its_path_covers(
    path: str, covered: list[str], not_covered: list[str]
) -> None:
    fault = Reset(path=path)
    assert [one for one in covered + not_covered if fault.covers(one)] == covered


def test_pauses_are_of_polls_and_sessions_expire_once_if_nothing_else_is_said() -> None:
    assert Paused().path == "polls"
    assert Expire().count == 1


@pytest.mark.parametrize(
    ("fault", "on", "off"),
    [
        (Reset(), [0, 1e9], []),
        (Reset(from_s=10), [10, 1e9], [0, 9.9]),
        (Reset(from_s=10, for_s=5), [10, 14.9], [9.9, 15, 70]),
        (Reset(from_s=10, for_s=5, every_s=60), [10, 14.9, 70, 134.9], [9.9, 15, 69.9, 75]),
    ],
)
def test_windows(fault: Reset, on: list[float], off: list[float]) -> None:
    assert [moment for moment in on + off if fault.is_on(moment)] == on
