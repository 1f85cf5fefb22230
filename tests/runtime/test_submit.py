import asyncio

import pytest

from tinkex_proxy.core.circuit import Force
from tinkex_proxy.core.outcome import Fault, Operation
from tinkex_proxy.core.retry import Kind
from tinkex_proxy.errors import (
    ApiKeyRefused,
    CircuitOpen,
    OutcomeUnknown,
    UpstreamConflict,
    UpstreamFault,
    UpstreamRefused,
    UpstreamThrottled,
    UpstreamUnreachable,
)
from tinkex_proxy.runtime.submit import Admitted, Refused, Submitter
from tinkex_proxy.runtime.upstream import Ask


def ask(**more: object) -> Ask:
    return Ask(
        operation=Operation.SUBMIT, path="/api/v1/optim_step", body=b"{}", identity="i", **more
    )


async def submit(bench, answers, *, threshold: int = 100, **more: object):
    upstream, transport = bench.upstream(answers, threshold=threshold)
    verdict = await Submitter(upstream, bench.clock, patience_s=300).submit(ask(**more))
    return verdict, transport


async def test_admitted_with_the_name_of_its_future(bench, reply) -> None:
    verdict, _ = await submit(bench, [reply(200, {"request_id": 7})])
    assert isinstance(verdict, Admitted)
    assert verdict.request_id == "7"


@pytest.mark.parametrize("body", [{"ok": 1}, b"\x00"])
async def test_admitted_without_a_future_is_answered_already(bench, reply, body) -> None:
    verdict, _ = await submit(bench, [reply(200, body)])
    assert isinstance(verdict, Admitted)
    assert verdict.request_id is None


@pytest.mark.parametrize("lost", [Fault.RESET, Fault.TIMEOUT, 500, 503, 408])
async def test_a_lost_answer_is_asked_for_with_the_same_bytes(bench, reply, lost) -> None:
    """Same body, same identity: the upstream recognises it and nothing runs twice."""
    first = lost if isinstance(lost, Fault) else reply(lost)
    verdict, transport = await submit(bench, [first, reply(200, {"request_id": "r"})])
    assert isinstance(verdict, Admitted)
    assert transport.requests[0] == transport.requests[1]


@pytest.mark.parametrize("lost", [Fault.RESET, 500])
async def test_where_repetitions_run_again_a_lost_answer_is_not_repeated(
    bench, reply, lost
) -> None:
    first = lost if isinstance(lost, Fault) else reply(lost)
    verdict, transport = await submit(bench, [first], repeatable=False)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, OutcomeUnknown)
    assert verdict.doubtful
    assert len(transport.requests) == 1


async def test_no_connection_is_told_soon_and_nothing_ran(bench) -> None:
    verdict, transport = await submit(bench, lambda _: Fault.CONNECT, repeatable=False)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, UpstreamUnreachable)
    assert not verdict.doubtful
    assert len(transport.requests) == 5


async def test_a_call_that_an_sdk_was_promised_waits_for_an_upstream_that_is_away(
    bench, reply
) -> None:
    """Through refused connections and the open breaker that comes of them."""
    answers = [*[Fault.CONNECT] * 8, reply(200, {"request_id": "r"})]
    verdict, transport = await submit(bench, answers, threshold=5, persistent=True)
    assert isinstance(verdict, Admitted)
    assert len(transport.requests) == 9
    verdict, _ = await submit(bench, lambda _: Fault.CONNECT, persistent=True)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, UpstreamUnreachable)
    assert sum(bench.clock.slept) >= 300


async def test_the_upstream_may_ask_for_a_repetition(bench, reply) -> None:
    """`x-should-retry`, as in the SDK, whose training submits go on after a `false` too."""
    answers = [reply(400, x_should_retry="true"), reply(200, {"request_id": "r"})]
    verdict, _ = await submit(bench, answers)
    assert isinstance(verdict, Admitted)
    answers = [reply(503, x_should_retry="false"), reply(200, {"request_id": "r"})]
    verdict, _ = await submit(bench, answers)
    assert isinstance(verdict, Admitted)


async def test_a_redirect_is_no_callers_fault(bench, reply) -> None:
    verdict, _ = await submit(bench, [reply(307)])
    assert isinstance(verdict, Refused)
    assert not verdict.bisect


async def test_a_refusal_carries_the_upstreams_own_words(bench, reply) -> None:
    for status in (400, 401, 409):
        verdict, _ = await submit(bench, [reply(status, {"detail": "no"})])
        assert isinstance(verdict, Refused)
        assert verdict.error.upstream_said == (status, "no")


async def test_no_connection_after_a_lost_answer_is_asked_on(bench, reply) -> None:
    """Once it may have run, only an answer ends the asking."""
    answers = [Fault.RESET, *[Fault.CONNECT] * 8, reply(200, {"request_id": "r"})]
    verdict, _ = await submit(bench, answers)
    assert isinstance(verdict, Admitted)


async def test_patience_ends_with_the_truth(bench) -> None:
    verdict, _ = await submit(bench, lambda _: Fault.RESET)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, OutcomeUnknown)
    assert verdict.doubtful
    assert sum(bench.clock.slept) >= 300


async def test_throttling_waits_as_told_and_costs_nothing(bench, reply) -> None:
    answers = [
        reply(429, retry_after="7"),
        reply(402, retry_after_ms="2500"),
        reply(429),
        reply(200, {"request_id": "r"}),
    ]
    verdict, _ = await submit(bench, answers, repeatable=False)
    assert isinstance(verdict, Admitted)
    for slept, least in zip(bench.clock.slept, (7, 2.5, 1), strict=True):
        assert slept >= least


async def test_throttling_without_end_is_told(bench, reply) -> None:
    verdict, _ = await submit(bench, lambda _: reply(429, {"detail": "busy"}))
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, UpstreamThrottled)
    assert verdict.error.retry_after_s == 1


@pytest.mark.parametrize(
    ("status", "error", "bisect"),
    [
        (400, UpstreamRefused, True),
        (413, UpstreamRefused, True),
        (415, UpstreamRefused, True),
        (422, UpstreamRefused, True),
        (404, UpstreamRefused, False),
        (410, UpstreamRefused, False),
        (401, ApiKeyRefused, False),
        (403, ApiKeyRefused, False),
        (409, UpstreamConflict, False),
    ],
)
async def test_a_4xx_proves_that_nothing_ran(bench, reply, status, error, bisect) -> None:
    """Only what may be one part's fault is worth asking again in halves."""
    verdict, transport = await submit(bench, [reply(status, {"detail": "because"})])
    assert isinstance(verdict, Refused)
    assert type(verdict.error) is error
    assert "because" in verdict.error.detail
    assert (verdict.status, verdict.bisect, verdict.doubtful) == (status, bisect, False)
    assert len(transport.requests) == 1


async def test_an_open_breaker_is_told_at_once_if_nothing_was_sent(bench, reply) -> None:
    upstream, _ = bench.upstream([reply(500)], threshold=1)
    submitter = Submitter(upstream, bench.clock, patience_s=0)
    await submitter.submit(ask())
    verdict = await submitter.submit(ask())
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, CircuitOpen)


async def test_a_breaker_that_opens_on_refused_connections_names_the_cause(bench) -> None:
    verdict, _ = await submit(bench, lambda _: Fault.CONNECT, threshold=2)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, UpstreamUnreachable)


async def test_in_doubt_an_open_breaker_is_waited_out(bench, reply) -> None:
    """The window passes, the repetition is the probe, and the answer is there."""
    answers = [reply(500), reply(200, {"request_id": "r"})]
    verdict, _ = await submit(bench, answers, threshold=1)
    assert isinstance(verdict, Admitted)
    assert max(bench.clock.slept) >= 29


@pytest.mark.parametrize("status", [401, 403, 404, 409, 410])
async def test_in_doubt_a_refusal_that_is_not_of_the_bytes_leaves_the_doubt(
    bench, reply, status
) -> None:
    """It says nothing of the attempt before: "nothing ran" would invite a second one."""
    answers = [Fault.RESET, *[reply(status, {"detail": "no"})] * 4]
    verdict, transport = await submit(bench, answers)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, OutcomeUnknown)
    assert (verdict.status, verdict.doubtful, verdict.bisect) == (status, True, False)
    assert f"{status}: no" in verdict.error.detail
    assert len({request.body for request in transport.requests}) == 1


async def test_in_doubt_bytes_that_are_refused_every_time_were_refused_the_first_time(
    bench, reply
) -> None:
    verdict, transport = await submit(bench, [reply(503), *[reply(400, {"detail": "bad"})] * 4])
    assert isinstance(verdict, Refused)
    assert type(verdict.error) is UpstreamRefused
    assert (verdict.status, verdict.doubtful, verdict.bisect) == (400, False, True)
    assert len(transport.requests) == 5


async def test_in_doubt_a_gateways_refusal_is_not_the_upstreams(bench, reply) -> None:
    answers = [Fault.TIMEOUT, reply(404), reply(401), reply(200, {"request_id": "r"})]
    verdict, _ = await submit(bench, answers)
    assert isinstance(verdict, Admitted)


async def test_a_sample_that_is_given_up_is_in_no_doubt(bench, reply) -> None:
    """Drawing it again changes nothing, so its caller gets the error and not a riddle."""
    verdict, transport = await submit(bench, lambda _: reply(500), kind=Kind.SAMPLE)
    assert isinstance(verdict, Refused)
    assert type(verdict.error) is UpstreamFault
    assert verdict.error.retryable
    assert not verdict.doubtful
    assert len(transport.requests) > 11
    verdict, transport = await submit(
        bench, [reply(503, x_should_retry="false")], kind=Kind.SAMPLE, repeatable=False
    )
    assert isinstance(verdict, Refused)
    assert len(transport.requests) == 1


@pytest.mark.parametrize(
    ("kind", "error"), [(Kind.SAMPLE, UpstreamFault), (Kind.TRAINING, OutcomeUnknown)]
)
async def test_a_wait_that_is_asked_for_with_a_date_is_observed(bench, reply, kind, error) -> None:
    dated = reply(
        503,
        date="Wed, 21 Oct 2026 07:28:00 GMT",
        retry_after="Wed, 21 Oct 2026 07:28:30 GMT",
    )
    verdict, _ = await submit(bench, lambda _: dated, kind=kind)
    assert isinstance(verdict, Refused)
    assert type(verdict.error) is error
    assert min(bench.clock.slept) >= 30


async def test_what_an_earlier_run_may_have_sent_goes_again_only_where_it_is_recognised(
    bench, reply
) -> None:
    """Else it is in doubt from the start, and nothing is sent at all."""
    verdict, transport = await submit(bench, [], doubtful=True, repeatable=False)
    assert isinstance(verdict, Refused)
    assert isinstance(verdict.error, OutcomeUnknown)
    assert transport.requests == []
    answers = [reply(404), Fault.CONNECT, reply(200, {"request_id": "r"})]
    verdict, _ = await submit(bench, answers, doubtful=True)
    assert isinstance(verdict, Admitted)


async def test_another_patience_holds_from_the_next_submit_on(bench, reply) -> None:
    upstream, transport = bench.upstream(lambda _: reply(500))
    submitter = Submitter(upstream, bench.clock, patience_s=300)
    submitter.reconfigure(patience_s=0)
    assert isinstance(await submitter.submit(ask()), Refused)
    assert len(transport.requests) == 1


async def test_in_doubt_a_breaker_that_an_operator_resets_is_not_waited_out(bench, reply) -> None:
    """Else a button would help new calls only, and those that wait would go on waiting."""
    upstream, _ = bench.upstream([reply(500), reply(200, {"request_id": "r"})], threshold=1)
    bench.clock.longest_s = 29
    asked = asyncio.ensure_future(Submitter(upstream, bench.clock).submit(ask()))
    await bench.clock.held.wait()
    upstream.breaker.reset()
    assert isinstance(await asked, Admitted)


@pytest.mark.parametrize("force", [Force.CLOSE, Force.DISABLE])
async def test_nor_one_that_is_made_to_let_requests_through(bench, reply, force) -> None:
    upstream, _ = bench.upstream([reply(500), reply(200, {"request_id": "r"})], threshold=1)
    bench.clock.longest_s = 29
    asked = asyncio.ensure_future(Submitter(upstream, bench.clock).submit(ask()))
    await bench.clock.held.wait()
    upstream.breaker.force(Force.OPEN)
    await asyncio.sleep(0)
    assert not asked.done()
    upstream.breaker.force(force)
    assert isinstance(await asked, Admitted)
