import pytest

from tinkex_proxy.core.outcome import Fault, Operation
from tinkex_proxy.errors import UpstreamFault, UpstreamThrottled, UpstreamUnreachable
from tinkex_proxy.runtime.query import knows_model, query


async def test_a_question_is_asked_again_and_answered(bench, reply) -> None:
    upstream, transport = bench.upstream([Fault.RESET, reply(500), reply(404)])
    assert (await query(upstream, bench.clock, "/x", {"a": 1})).status == 404
    assert [r.body for r in transport.requests] == [b'{"a":1}'] * 3


async def test_a_question_without_fields_is_a_get(bench, reply) -> None:
    upstream, transport = bench.upstream([reply()])
    await query(upstream, bench.clock, "/x")
    assert transport.requests[0].method == "GET"


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault.CONNECT, UpstreamUnreachable), (Fault.TIMEOUT, UpstreamFault)]
)
async def test_three_faults_are_told(bench, fault, error) -> None:
    upstream, transport = bench.upstream(lambda _: fault)
    with pytest.raises(error) as caught:
        await query(upstream, bench.clock, "/x", {})
    assert len(transport.requests) == 3
    assert caught.value.retryable


async def test_three_5xx_are_told(bench, reply) -> None:
    upstream, _ = bench.upstream(lambda _: reply(503))
    with pytest.raises(UpstreamFault, match="503") as caught:
        await query(upstream, bench.clock, "/x", {})
    assert caught.value.retryable
    assert not UpstreamFault("of a call that may have run").retryable


@pytest.mark.parametrize(
    ("status", "known"), [(200, True), (404, False), (410, False), (400, True), (503, True)]
)
async def test_a_model_is_gone_only_if_the_upstream_says_so(bench, reply, status, known) -> None:
    upstream, transport = bench.upstream(lambda _: reply(status))
    assert await knows_model(upstream, bench.clock, "m") is known
    assert transport.requests[0].body == b'{"model_id":"m","type":"get_info"}'


async def test_a_throttled_question_waits_as_told_and_is_told_when_that_is_not_enough(
    bench, reply
) -> None:
    upstream, _ = bench.upstream(
        [reply(429, retry_after="7"), reply(503, retry_after="3"), reply()]
    )
    assert (await query(upstream, bench.clock, "/x", {})).status == 200
    assert bench.clock.slept[0] >= 7
    assert bench.clock.slept[1] >= 3
    upstream, transport = bench.upstream(lambda _: reply(429, {"detail": "busy"}, retry_after="9"))
    with pytest.raises(UpstreamThrottled, match="busy") as caught:
        await query(upstream, bench.clock, "/x", {})
    assert caught.value.retry_after_s == 9
    assert len(transport.requests) == 3


@pytest.mark.parametrize("status", [402, 408])
async def test_what_says_not_now_is_no_answer(bench, reply, status) -> None:
    upstream, _ = bench.upstream([reply(status), reply()])
    assert (await query(upstream, bench.clock, "/x", {})).status == 200


async def test_the_upstream_may_ask_for_a_repetition_or_forbid_it(bench, reply) -> None:
    """As the SDK takes `x-should-retry`; a refusal that stays is the answer."""
    upstream, transport = bench.upstream([reply(404, x_should_retry="true"), reply()])
    assert (await query(upstream, bench.clock, "/x", {})).status == 200
    upstream, transport = bench.upstream(lambda _: reply(404, x_should_retry="true"))
    assert (await query(upstream, bench.clock, "/x", {})).status == 404
    assert len(transport.requests) == 3
    upstream, transport = bench.upstream(lambda _: reply(503, x_should_retry="false"))
    with pytest.raises(UpstreamFault):
        await query(upstream, bench.clock, "/x", {})
    assert len(transport.requests) == 1


async def test_what_makes_a_session_is_named_and_a_question_is_not(bench, reply) -> None:
    """The same name in each repetition, as in the SDK."""
    upstream, transport = bench.upstream(lambda _: reply(503))
    with pytest.raises(UpstreamFault):
        await query(upstream, bench.clock, "/x", {}, operation=Operation.SESSION)
    with pytest.raises(UpstreamFault):
        await query(upstream, bench.clock, "/x", {})
    names = [request.headers.get("x-idempotency-key") for request in transport.requests]
    assert names[0] is not None
    assert names == [names[0]] * 3 + [None] * 3
