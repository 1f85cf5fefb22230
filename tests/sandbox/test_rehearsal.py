"""The plan that is on."""

from tests.sandbox.conftest import Clock
from tinkex_proxy.sandbox.dice import NOTHING
from tinkex_proxy.sandbox.faults import Error
from tinkex_proxy.sandbox.plans import Plan
from tinkex_proxy.sandbox.rehearsal import Rehearsal

POLL = "/api/v1/retrieve_future"


def test_windows_and_counts_begin_anew_with_each_plan() -> None:
    clock = Clock()
    plan = Plan(faults=(Error(from_s=10, for_s=5),), seed=3)
    rehearsal = Rehearsal(plan, clock)
    assert rehearsal.decide(POLL) is NOTHING
    clock.seconds += 12
    assert rehearsal.decide(POLL) is not NOTHING
    told = rehearsal.described()
    assert (told["seed"], told["running_s"], told["hits"]) == (3, 12, [1])
    rehearsal.change(plan)
    assert rehearsal.decide(POLL) is NOTHING
    told = rehearsal.described()
    assert (told["running_s"], told["hits"]) == (0, [0])
