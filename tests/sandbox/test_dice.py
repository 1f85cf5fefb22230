"""Who is hit, and that it is the same ones in every run."""

import pytest

from tinkex_proxy.sandbox.dice import NOTHING, Decision, Dice
from tinkex_proxy.sandbox.faults import (
    Duplicate,
    Error,
    Expire,
    Fault,
    Latency,
    Lost,
    Paused,
    Reset,
    Slow,
)
from tinkex_proxy.sandbox.plans import Plan

SUBMIT = "/api/v1/forward_backward"
POLL = "/api/v1/retrieve_future"


def decided(*faults: Fault, times: int = 1, seed: int = 0, path: str = POLL) -> list[Decision]:
    dice = Dice(Plan(faults=faults, seed=seed))
    return [dice.decide(path, 0) for _ in range(times)]


def hit(*faults: Fault, **more: int) -> list[bool]:
    return [decision.instead is not None for decision in decided(*faults, times=400, **more)]


def test_without_faults_nothing_happens() -> None:
    assert decided() == [NOTHING]


def test_a_run_repeats_and_another_seed_is_another_run() -> None:
    assert hit(Error(rate=0.3)) == hit(Error(rate=0.3))
    assert hit(Error(rate=0.3)) != hit(Error(rate=0.3), seed=1)


def test_a_rate_is_a_share_of_the_requests() -> None:
    assert 0.04 < sum(hit(Error(rate=0.05), seed=3)) / 400 < 0.07
    assert not any(hit(Error(rate=0)))
    assert all(hit(Error(rate=1)))


def test_two_faults_do_not_hit_the_same_requests() -> None:
    one, two = Error(rate=0.5), Lost(rate=0.5)
    both = [d.instead is not None and d.afterwards is not None for d in decided(one, two, times=99)]
    assert 0 < sum(both) < 49


def test_other_requests_do_not_change_who_is_hit() -> None:
    """Heartbeats come when they come; a run must repeat all the same."""
    dice = Dice(Plan(faults=(Error(rate=0.3, path="polls"),)))
    alone = hit(Error(rate=0.3, path="polls"))
    for expected in alone:
        assert dice.decide("/api/v1/session_heartbeat", 0) is NOTHING
        assert (dice.decide(POLL, 0).instead is not None) is expected


def test_a_window_does_not_change_who_is_hit_in_it() -> None:
    dice = Dice(Plan(faults=(Error(rate=0.3, from_s=10),)))
    seen = [dice.decide(POLL, 0 if n < 200 else 10).instead is not None for n in range(400)]
    assert seen == [False] * 200 + hit(Error(rate=0.3))[200:]


def test_a_count_is_the_most_that_are_hit() -> None:
    dice = Dice(Plan(faults=(Expire(), Error(count=2), Reset(path="submits"))))
    decisions = [dice.decide(POLL, 0) for _ in range(4)]
    assert [d.expire for d in decisions] == [True, False, False, False]
    assert [d.instead is not None for d in decisions] == [True, True, False, False]
    assert dice.hits == [1, 2, 0]


def test_delays_add_up_and_jitter_is_spread() -> None:
    delays = [
        d.delay_s for d in decided(Latency(delay_s=1), Latency(delay_s=2, jitter_s=0.5), times=200)
    ]
    assert 3 <= min(delays) < 3.05
    assert 3.45 < max(delays) <= 3.5


@pytest.mark.parametrize("kind", [Error, Reset, Lost])
def test_before_and_after_acting(kind: type[Error | Reset | Lost]) -> None:
    before, after = kind(when="before"), kind(when="after")
    assert decided(before) == [Decision(instead=before)]
    assert decided(after) == [Decision(afterwards=after)]


def test_of_two_that_would_answer_the_first_does() -> None:
    assert decided(Error(), Reset(), Paused())[0].instead == Error()
    assert decided(Paused(), Error())[0].instead == Paused()
    assert decided(Lost(), Reset(when="midway"))[0].afterwards == Lost()


def test_the_slower_of_two_speeds_counts() -> None:
    assert decided(Slow(bytes_per_s=9), Slow(bytes_per_s=5))[0].bytes_per_s == 5


def test_a_body_is_slow_in_the_direction_that_is_meant() -> None:
    answer, request = Slow(bytes_per_s=9), Slow(bytes_per_s=8, body="request")
    assert decided(request) == [Decision(request_bytes_per_s=8)]
    assert decided(answer, request) == [Decision(bytes_per_s=9, request_bytes_per_s=8)]
    both = Slow(bytes_per_s=5, body="both")
    assert decided(both, answer, request) == [Decision(bytes_per_s=5, request_bytes_per_s=5)]


def test_a_request_can_be_delivered_twice() -> None:
    twice = Duplicate(path="submits")
    assert decided(twice) == [NOTHING]
    assert decided(twice, path=SUBMIT) == [Decision(again=twice)]
    assert decided(Duplicate(lag_s=3), Duplicate())[0].again == Duplicate(lag_s=3)
