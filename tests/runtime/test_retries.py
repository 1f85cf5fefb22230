"""One key's repetitions: who fails and who waits when the budget is spent."""

import asyncio
import random

import pytest

from tinkex_proxy.core.advice import Advice
from tinkex_proxy.core.budget import RetryBudget
from tinkex_proxy.core.outcome import Fault, Operation
from tinkex_proxy.core.retry import Happened, Kind
from tinkex_proxy.errors import OutcomeUnknown, UpstreamFault, UpstreamThrottled
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import Repeated
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.query import query
from tinkex_proxy.runtime.retries import Retries
from tinkex_proxy.runtime.submit import Admitted, Refused, Submitter
from tinkex_proxy.runtime.upstream import Ask


def spend(retries: Retries) -> None:
    while retries._budget.take(retries._clock.now()):
        pass


def ask(kind: Kind, **more: object) -> Ask:
    return Ask(operation=Operation.SUBMIT, path="/api/v1/x", body=b"{}", kind=kind, **more)


def refused(bench) -> list[Repeated]:
    return [e for e in bench.recorder.events if isinstance(e, Repeated) and not e.sent]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_wait_is_what_was_asked_for_and_a_draw_on_top(bench, monkeypatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.5)
    retries = Retries(bench.clock, bench.hub, RetryBudget())
    asking = retries.begin(Kind.TRAINING)
    assert await retries.wait_s(asking, Happened.LOST) == 0.125
    assert await retries.wait_s(asking, Happened.FAULT, Advice(7.0)) == 7.25
    assert await retries.wait_s(asking, Happened.REFUSED, Advice(again=True)) == 0.5
    assert retries.snapshot() == {
        "retries": 3,
        "retries_refused": 0,
        "retry_budget_remaining": 97,
    }


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.TIMEOUT, Fault.CONNECT])
async def test_a_question_for_which_there_is_no_budget_fails_now_with_its_error(
    bench, fault
) -> None:
    upstream, transport = bench.upstream(lambda _: fault)
    spend(upstream.retries)
    with pytest.raises(UpstreamFault if fault is not Fault.CONNECT else Exception):
        await query(upstream, bench.clock, "/x", {})
    assert len(transport.requests) == 1
    assert bench.clock.slept == []
    assert [event.operation for event in refused(bench)] == ["question"]


async def test_a_sample_for_which_there_is_no_budget_fails_now_with_its_error(bench, reply) -> None:
    upstream, transport = bench.upstream(lambda _: reply(500, {"detail": "overloaded"}))
    spend(upstream.retries)
    verdict = await Submitter(upstream, bench.clock).submit(ask(Kind.SAMPLE))
    assert isinstance(verdict, Refused)
    assert type(verdict.error) is UpstreamFault
    assert "overloaded" in verdict.error.detail
    assert len(transport.requests) == 1
    assert refused(bench) == [Repeated("sample", "fault", sent=False)]


@pytest.mark.parametrize("kind", [Kind.TRAINING, Kind.CREATE_MODEL])
async def test_what_may_have_run_waits_for_budget_and_is_not_given_up(bench, reply, kind) -> None:
    """However short its patience: that is for the upstream."""
    upstream, _ = bench.upstream([Fault.RESET, reply(200, {"request_id": "r"})])
    spend(upstream.retries)
    verdict = await Submitter(upstream, bench.clock, patience_s=2).submit(ask(kind))
    assert isinstance(verdict, Admitted)
    assert 10 <= sum(bench.clock.slept) <= 12
    assert refused(bench) == []


async def test_who_waits_for_budget_goes_in_the_order_it_came() -> None:
    clock = ManualClock()
    retries = Retries(clock, Hub([], print), RetryBudget(ratio=0, per_s=0.1))
    spend(retries)
    gone: list[str] = []

    async def repeat(name: str) -> None:
        assert await retries.wait_s(retries.begin(Kind.TRAINING), Happened.LOST) is not None
        gone.append(name)

    waiting = [asyncio.create_task(repeat(name)) for name in "abc"]
    await turns()
    assert gone == []
    for expected in ("a", "ab", "abc"):
        while "".join(gone) != expected:
            clock.advance(1)
            await turns()
            assert expected.startswith("".join(gone))
    await asyncio.gather(*waiting)
    assert clock.now() >= 3 * 10


async def test_who_gives_up_waiting_for_budget_leaves_the_line_to_the_next() -> None:
    clock = ManualClock()
    retries = Retries(clock, Hub([], print), RetryBudget(ratio=0, per_s=0.1))
    spend(retries)

    async def repeat() -> float | None:
        return await retries.wait_s(retries.begin(Kind.TRAINING), Happened.LOST)

    leaving, staying = asyncio.create_task(repeat()), asyncio.create_task(repeat())
    await turns()
    leaving.cancel()
    await turns()
    while not staying.done():
        clock.advance(1)
        await turns()
    assert staying.result() is not None
    assert leaving.cancelled()


async def test_what_the_upstream_set_a_date_for_needs_no_budget(bench, reply) -> None:
    """A burst of refused samples is held back as a whole, and then goes through."""
    upstream, transport = bench.upstream([reply(429), reply(402), reply(200, {"request_id": "r"})])
    spend(upstream.retries)
    submitter = Submitter(upstream, bench.clock)
    assert isinstance(await submitter.submit(ask(Kind.SAMPLE)), Admitted)
    upstream, transport = bench.upstream(lambda _: reply(429))
    spend(upstream.retries)
    with pytest.raises(UpstreamThrottled):
        await query(upstream, bench.clock, "/x", {})
    assert len(transport.requests) == 3
    assert refused(bench) == []


async def test_what_our_breaker_refused_is_no_repetition(bench, reply) -> None:
    """One was sent again, though it was held twice."""
    upstream, _ = bench.upstream([reply(500), reply(200, {"request_id": "r"})], threshold=1)
    before = upstream.retries.remaining()
    assert isinstance(await Submitter(upstream, bench.clock).submit(ask(Kind.TRAINING)), Admitted)
    assert before - upstream.retries.remaining() <= 1
    told = [event for event in bench.recorder.events if isinstance(event, Repeated)]
    assert told == [Repeated("training", "fault", sent=True)]


async def test_an_outage_costs_the_upstream_no_more_than_the_budget(bench, reply) -> None:
    """A thousand samples fail at once; a fifth of them and a hundred more are tried again."""
    upstream, transport = bench.upstream(lambda _: reply(503), threshold=10**6)
    submitter = Submitter(upstream, ManualClock())
    waiting = [asyncio.create_task(submitter.submit(ask(Kind.SAMPLE))) for _ in range(1000)]
    await turns(20)
    ended = [task for task in waiting if task.done()]
    assert len(transport.requests) == 1000
    assert len(ended) == 700
    assert upstream.retries.snapshot()["retries"] == 300
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_another_key_has_a_budget_of_its_own(bench, reply) -> None:
    one, _ = bench.upstream(lambda _: reply(503))
    other, _ = bench.upstream(lambda _: reply(503), key="tml-other")
    spend(one.retries)
    assert (one.retries.remaining(), other.retries.remaining()) == (0, 100)


async def test_where_repetitions_run_again_a_spent_budget_changes_nothing(bench) -> None:
    upstream, transport = bench.upstream(lambda _: Fault.RESET)
    spend(upstream.retries)
    verdict = await Submitter(upstream, bench.clock).submit(ask(Kind.TRAINING, repeatable=False))
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, OutcomeUnknown)
    assert len(transport.requests) == 1
    assert refused(bench) == []
