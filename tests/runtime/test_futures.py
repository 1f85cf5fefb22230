import asyncio
from collections import Counter

import msgspec
import pytest

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.errors import ApiKeyRefused, OutcomeUnknown, UpstreamFailed
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import Repeated
from tinkex_proxy.runtime.futures import QUEUE_STATES, Poller, QueueState


async def result(bench, answers, *, threshold: int = 10_000):
    upstream, transport = bench.upstream(answers, threshold=threshold)
    states: list[QueueState] = []
    response = await Poller(upstream, bench.clock).result(
        "r1", accept="application/x-protobuf", on_state=states.append
    )
    return response, states, transport


def try_again(state: str = "active", **more: object) -> dict[str, object]:
    return {"type": "try_again", "request_id": "r1", "queue_state": state, **more}


async def test_the_result_is_given_as_it_came(bench, reply) -> None:
    answer = reply(200, b"\x0a\x00", content_type="application/x-protobuf")
    response, _, transport = await result(bench, [answer])
    assert response is answer
    asked = msgspec.json.decode(transport.requests[0].body)
    assert asked == {"request_id": "r1", "allow_metadata_only": False}
    assert transport.requests[0].headers["accept"] == "application/x-protobuf"


async def test_not_ready_comes_as_200_and_as_408_and_tells_the_queue_state(bench, reply) -> None:
    answers = [
        reply(200, try_again("paused_capacity", queue_state_reason="full")),
        reply(408, try_again("active")),
        reply(408, {"detail": "Timeout waiting for result"}),
        reply(408, b"", content_type="text/plain"),
        reply(408, b"not json"),
        reply(200, {"metrics": {}}),
    ]
    response, states, _ = await result(bench, answers)
    assert response.body == b'{"metrics":{}}'
    assert states == [QueueState("paused_capacity", "full"), QueueState("active", None)]


async def test_quick_not_readys_are_spaced_out(bench, reply) -> None:
    """An upstream that does not hold its polls is not hammered: 20 ms doubling to a second."""
    answers = [reply(200, try_again())] * 9 + [reply(200, {})]
    await result(bench, answers)
    assert bench.clock.slept == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0])


async def test_metadata_only_is_asked_again(bench, reply) -> None:
    answers = [reply(200, {"status": "complete_metadata"}), reply(200, {"a": 1})]
    response, _, _ = await result(bench, answers)
    assert response.body == b'{"a":1}'


async def test_a_failed_request_fails_for_good_with_its_category(bench, reply) -> None:
    with pytest.raises(UpstreamFailed, match="bad data") as caught:
        await result(bench, [reply(200, {"error": "bad data", "category": "user"})])
    assert caught.value.category == "user"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "boom"}, "boom"),
        ({"error": {"message": "boom"}}, '"message":"boom"'),
        ({"status": "failed", "error": {"code": 7}}, '"code":7'),
    ],
)
async def test_whoever_has_an_error_has_no_result(bench, reply, body, said) -> None:
    """As in the SDK: an error without a category is a failure of an unknown one."""
    with pytest.raises(UpstreamFailed, match=said) as caught:
        await result(bench, [reply(200, body)])
    assert caught.value.category == "unknown"


async def test_pending_is_not_a_result(bench, reply) -> None:
    response, _, _ = await result(bench, [reply(200, {"status": "pending"}), reply(200, {"a": 1})])
    assert response.body == b'{"a":1}'


async def test_a_fault_after_a_long_outage_does_not_lose_the_result(bench, reply) -> None:
    """The 300 s that a 500 may last begin with the 500, not with the outage before it."""
    away = [Fault.CONNECT] * 100
    response, _, _ = await result(bench, [*away, reply(500), reply(200, {"a": 1})])
    assert response.body == b'{"a":1}'
    assert sum(bench.clock.slept) > 300


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_gateways_word_is_waited_out_like_an_outage(bench, reply, status) -> None:
    answers = [*[reply(status)] * 100, reply(200, {"a": 1})]
    response, _, _ = await result(bench, answers)
    assert response.body == b'{"a":1}'
    assert sum(bench.clock.slept) > 600


async def test_a_400_is_spurious_three_times_and_then_the_failure(bench, reply) -> None:
    answers = [reply(400, {"detail": "rank too big"})] * 3 + [reply(200, {})]
    response, _, _ = await result(bench, answers)
    assert response.status == 200
    with pytest.raises(UpstreamFailed, match="rank too big"):
        await result(bench, [reply(400, {"detail": "rank too big"})] * 4)


@pytest.mark.parametrize("status", [404, 410])
async def test_a_promise_that_is_gone_leaves_the_outcome_unknown(bench, reply, status) -> None:
    with pytest.raises(OutcomeUnknown, match=str(status)):
        await result(bench, [reply(status, {"detail": "Future not found"})])


async def test_a_key_that_stops_being_good(bench, reply) -> None:
    with pytest.raises(ApiKeyRefused):
        await result(bench, [reply(401)])


async def test_outages_are_sat_out(bench, reply) -> None:
    """Polls only ask, so faults of every kind are followed by another poll."""
    answers = [
        Fault.CONNECT,
        Fault.RESET,
        Fault.TIMEOUT,
        reply(503, retry_after="9"),
        reply(429),
        reply(402),
        reply(200, {"a": 1}),
    ]
    response, _, _ = await result(bench, answers)
    assert response.status == 200
    assert max(bench.clock.slept) >= 9


async def test_an_open_breaker_holds_polls_until_it_may_be_probed(bench, reply) -> None:
    response, _, transport = await result(
        bench, [reply(500), reply(200), reply(200, {})], threshold=1
    )
    assert response.status == 200
    asked = [request.path.rpartition("/")[2] for request in transport.requests]
    assert asked == ["retrieve_future", "healthz", "retrieve_future"]
    assert max(bench.clock.slept) >= 29


async def test_a_breaker_that_an_operator_resets_holds_no_poll_any_longer(bench, reply) -> None:
    upstream, _ = bench.upstream([reply(500), reply(200, {})], threshold=1)
    bench.clock.longest_s = 29
    poller = Poller(upstream, bench.clock)
    asked = asyncio.ensure_future(poller.result("r1", accept="*/*", on_state=lambda _: None))
    await bench.clock.held.wait()
    upstream.breaker.reset()
    assert (await asked).status == 200


async def test_an_answer_of_5xx_for_ever_ends(bench, reply) -> None:
    """SkyRL 0.3.0 answers so for a result that holds a NaN."""
    with pytest.raises(OutcomeUnknown, match="300 s"):
        await result(bench, lambda _: reply(500, b"Internal Server Error"))


async def test_silence_for_an_hour_ends(bench) -> None:
    with pytest.raises(OutcomeUnknown, match="3600 s"):
        await result(bench, lambda _: Fault.RESET)


async def test_a_body_that_is_not_json_is_somebody_elses_to_read(bench, reply) -> None:
    response, _, _ = await result(bench, [reply(200, b"[1]")])
    assert response.body == b"[1]"


async def test_what_the_upstream_holds_is_counted_by_what_it_last_said(bench, reply) -> None:
    """Any word it makes up is `other`; what has ended is counted no more."""
    said = {
        "1": try_again("active"),
        "2": try_again("paused_capacity"),
        "3": try_again("paused_capacity"),
        "4": try_again("paused_by_moonlight"),
        "5": {"type": "try_again"},
    }
    clock = ManualClock()

    def answer(request):
        if clock.now():
            return reply(200, {})
        return reply(408, said[msgspec.json.decode(request.body)["request_id"]])

    upstream, transport = bench.upstream(answer)
    poller = Poller(upstream, clock)
    polls = asyncio.gather(*(poller.result(name, on_state=lambda _: None) for name in said))
    while len(transport.requests) < len(said):
        await asyncio.sleep(0)
    held = poller.states()
    assert held == {"active": 1, "paused_capacity": 2, "paused_rate_limit": 0, "other": 1}
    clock.advance(1)
    await polls
    assert poller.states() == dict.fromkeys(QUEUE_STATES, 0)


async def test_a_failed_poll_is_counted_and_needs_no_budget(bench, reply) -> None:
    upstream, _ = bench.upstream(
        [
            *[reply(503)] * 120,
            reply(400),
            Fault.RESET,
            *[reply(408, try_again())] * 3,
            reply(200, {}),
        ],
        threshold=10_000,
    )
    before = upstream.retries.remaining()
    await Poller(upstream, bench.clock).result("r", on_state=lambda _: None)
    assert upstream.retries.remaining() == before
    counted = Counter(e.reason for e in bench.recorder.events if isinstance(e, Repeated))
    assert counted == {"fault": 120, "refused": 1, "lost": 1}


async def test_another_hold_holds_for_the_results_that_are_waited_for_next(bench, reply) -> None:
    upstream, transport = bench.upstream([reply(200, {}), reply(200, {})])
    poller = Poller(upstream, bench.clock)
    await poller.result("r1", on_state=print)
    poller.reconfigure(hold_s=7)
    await poller.result("r2", on_state=print)
    assert [request.timeout_s for request in transport.requests] == [45, 7]
