"""What aiobreaker 1.2.0 gets wrong, one by one, held to be right here.

Each was shown to happen with aiobreaker by itself; the number is that of the list in
docs/breakers.md. The breaker under test is the whole one, with aiobreaker inside it.
"""

import asyncio
import time
import warnings

import pytest

from tinkex_proxy.core.breaker import GateSettings
from tinkex_proxy.core.circuit import Force, State
from tinkex_proxy.core.outcome import Fault, Operation, Outcome
from tinkex_proxy.core.trip import TripSettings
from tinkex_proxy.errors import CircuitOpen
from tinkex_proxy.runtime.breakers import Breaker, BreakerSettings
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import Transition
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.upstream import Ask, Unanswered

ASK = Ask(operation=Operation.SUBMIT, path="/api/v1/x")


class Bed:
    """A breaker that trips after three failures and stays open for 30 s."""

    def __init__(self, *, failures: int = 3, open_for_s: float = 30, **trip: object) -> None:
        self.clock = ManualClock()
        self.time_of_day = 1_700_000_000.0
        self.events: list[object] = []
        self.broken: list[Exception] = []
        self.on_event = self.events.append
        self.breaker = Breaker(
            "b",
            BreakerSettings(
                gate=GateSettings(
                    trip=TripSettings(failure_threshold=failures, **trip),
                    open_for_s=open_for_s,
                )
            ),
            clock=self.clock,
            hub=Hub([self], on_broken=self.broken.append),
            wall_clock=lambda: self.time_of_day,
            draw=lambda: 0.0,
        )

    def end(self, permit: object, outcome: Outcome = Outcome.FAILURE) -> None:
        self.breaker.settle(permit, outcome, outcome.value)

    def call(self, outcome: Outcome, times: int = 1) -> None:
        for _ in range(times):
            self.end(self.breaker.acquire(), outcome)

    def fail(self, times: int = 3) -> None:
        self.call(Outcome.FAILURE, times)

    @property
    def shown(self) -> dict[str, object]:
        return self.breaker.snapshot("u", "k")

    @property
    def state(self) -> str:
        return self.shown["state"]


@pytest.fixture
def bed() -> Bed:
    return Bed()


async def test_01_half_open_admits_one_probe_of_200_concurrent_calls(bench, reply) -> None:
    upstream, transport = bench.upstream(lambda _: reply(500), threshold=1)
    await upstream.ask(ASK)
    bench.clock.advance(30)
    answer, sent = asyncio.Event(), []

    async def hang(request):
        sent.append(request)
        await answer.wait()
        return reply()

    transport.send = hang
    calls = [asyncio.create_task(upstream.ask(ASK)) for _ in range(200)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert len(sent) == 1
    answer.set()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(one, CircuitOpen) for one in ended) == 199


def test_02_late_failures_do_not_extend_the_time_open(bed: Bed) -> None:
    slow = [bed.breaker.acquire() for _ in range(4)]
    bed.fail()
    bed.clock.advance(20)
    for permit in slow:
        bed.end(permit)
    assert bed.shown["retry_after_s"] == 10
    assert bed.shown["counts"]["stale"] == 4
    assert len(bed.events) == 1


def test_03_a_late_failure_does_not_open_anew_while_a_probe_runs(bed: Bed) -> None:
    slow = bed.breaker.acquire()
    bed.fail()
    bed.clock.advance(30)
    probe = bed.breaker.acquire()
    bed.end(slow)
    assert bed.state == "half_open"
    bed.end(probe, Outcome.SUCCESS)
    assert bed.state == "closed"


def test_04_a_success_closes_neither_an_open_breaker_nor_one_forced_open(bed: Bed) -> None:
    slow = bed.breaker.acquire()
    bed.fail()
    bed.end(slow, Outcome.SUCCESS)
    assert bed.state == "open"
    bed.clock.advance(30)
    probe = bed.breaker.acquire()
    bed.breaker.force(Force.OPEN)
    bed.end(probe, Outcome.SUCCESS)
    assert bed.state == "forced_open"


def test_05_late_successes_hide_no_outage() -> None:
    """Successes that began before an outage come in during it: the rate sees through them."""
    bed = Bed(failures=5, failure_rate=0.5, minimum_calls=10)
    slow = [bed.breaker.acquire() for _ in range(3)]
    failures = 0
    while bed.state == "closed":
        bed.fail(1)
        failures += 1
        if failures % 4 == 0 and slow:
            bed.end(slow.pop(), Outcome.SUCCESS)
    assert failures <= 10


def test_06_what_fails_four_times_of_five_and_never_five_times_in_a_row_trips() -> None:
    bed = Bed(failures=5, failure_rate=0.5, minimum_calls=20)
    calls = 0
    while bed.state == "closed":
        bed.call(Outcome.SUCCESS if calls % 5 == 4 else Outcome.FAILURE)
        calls += 1
    assert calls <= 21


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo", "Europe/Berlin", "UTC"])
def test_07_retry_after_knows_no_time_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        bed = Bed()
        bed.fail()
        with pytest.raises(CircuitOpen) as caught:
            bed.breaker.check()
        assert caught.value.retry_after_s == 30
        bed.clock.advance(31)
        assert bed.shown["retry_after_s"] == 0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("hours", [-1, 1])
def test_08_the_wall_clock_may_step(bed: Bed, hours: int) -> None:
    bed.fail()
    bed.time_of_day += hours * 3600
    bed.clock.advance(29)
    assert bed.state == "open"
    bed.clock.advance(1)
    assert bed.state == "half_open"


async def test_09_an_upstream_that_hangs_trips_it_and_cancelled_calls_are_seen(bench) -> None:
    """Our own timeout is a failure; a caller who leaves before says nothing, and is told of."""
    upstream, transport = bench.upstream(lambda _: Fault.TIMEOUT, threshold=3)
    answered = transport.send

    async def hang(request):
        await asyncio.Event().wait()

    transport.send = hang
    calls = [asyncio.create_task(upstream.ask(ASK)) for _ in range(50)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert upstream.breaker.explain()["outcomes"]["not_counted"] == 50
    transport.send = answered
    for _ in range(3):
        with pytest.raises(Unanswered):
            await upstream.ask(ASK)
    assert upstream.breaker.snapshot("u", "k")["state"] == "open"


def test_10_a_cancelled_probe_gives_its_place_back_and_no_sum_drifts(bed: Bed) -> None:
    bed.fail()
    bed.clock.advance(30)
    for _ in range(10):
        bed.call(Outcome.NEUTRAL)
    assert bed.shown["probes_in_flight"] == 0
    bed.call(Outcome.SUCCESS)
    counts = bed.shown["counts"]
    assert (counts["failure"], counts["neutral"], counts["success"]) == (3, 10, 1)
    assert bed.state == "closed"


async def test_11_who_trips_it_is_told_the_upstreams_own_answer(bench, reply) -> None:
    upstream, _ = bench.upstream([reply(503), Fault.RESET], threshold=1)
    assert (await upstream.ask(ASK)).status == 503
    bench.clock.advance(30)
    with pytest.raises(Unanswered) as caught:  # a probe that fails
        await upstream.ask(ASK)
    assert caught.value.fault is Fault.RESET


def test_12_time_alone_changes_the_state_and_is_told(bed: Bed) -> None:
    bed.fail()
    bed.clock.advance(15 * 30)
    assert [event.after for event in bed.events] == [State.OPEN, State.HALF_OPEN]
    assert bed.state == "half_open"


def test_13_a_listener_sees_the_state_that_it_is_told_of(bed: Bed) -> None:
    seen = []

    def on_event(event: object) -> None:
        assert isinstance(event, Transition)
        seen.append((event.after.value, bed.state))

    bed.on_event = on_event
    bed.fail()
    bed.clock.advance(30)
    bed.call(Outcome.SUCCESS)
    assert seen == [("open", "open"), ("half_open", "half_open"), ("closed", "closed")]


def test_14_a_listener_that_raises_stops_nothing(bed: Bed) -> None:
    def on_event(event: object) -> None:
        raise ValueError(event)

    bed.on_event = on_event
    bed.fail()
    assert bed.state == "open"
    bed.clock.advance(30)
    bed.call(Outcome.SUCCESS)
    assert bed.state == "closed"
    assert len(bed.broken) == 3


@pytest.mark.parametrize("outcome", [Outcome.NEUTRAL, Outcome.THROTTLED])
def test_15_what_does_not_count_is_no_success(bed: Bed, outcome: Outcome) -> None:
    """It neither forgives failures nor closes a half-open breaker."""
    bed.fail(2)
    bed.call(outcome)
    bed.fail(1)
    assert bed.state == "open"
    bed.clock.advance(30)
    bed.call(outcome)
    assert bed.state == "half_open"


def test_16_no_time_open_is_none_and_what_is_not_called_cannot_be_judged_wrong() -> None:
    """Zero is not a minute; and aiobreaker never runs, wraps or excludes anything of ours."""
    bed = Bed(open_for_s=0)
    bed.fail()
    assert bed.state == "half_open"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        bed.call(Outcome.SUCCESS)
        for _ in range(100):
            bed.fail(2)
            bed.call(Outcome.SUCCESS)
    assert said == []
    assert bed.state == "closed"
    inner = bed.breaker._circuit._inner
    assert (inner.excluded_exceptions, inner.listeners) == ((), ())
