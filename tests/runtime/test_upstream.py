import asyncio

import pytest

from tinkex_proxy.core.outcome import Fault, Operation, Outcome
from tinkex_proxy.core.trip import TripSettings
from tinkex_proxy.errors import ApiKeyRefused, CircuitOpen, UpstreamFault
from tinkex_proxy.runtime.events import Exchange, Transition
from tinkex_proxy.runtime.transport import Passing
from tinkex_proxy.runtime.upstream import Ask, Unanswered, detail_of, json_of
from tinkex_proxy.runtime.whose import Behalf, Whose


def ask(operation: Operation = Operation.SUBMIT, **more: object) -> Ask:
    return Ask(operation=operation, path="/api/v1/x", **more)


async def test_the_key_and_the_identity_travel_in_headers(bench, reply) -> None:
    upstream, transport = bench.upstream([reply()])
    await upstream.ask(ask(identity="abc"))
    headers = transport.requests[0].headers
    assert (headers["x-api-key"], headers["x-idempotency-key"]) == ("tml-key", "abc")
    assert headers["content-type"] == headers["accept"] == "application/json"


async def test_without_a_key_none_is_sent(bench, reply) -> None:
    upstream, transport = bench.upstream([reply()], key=None)
    await upstream.ask(ask(method="GET"))
    assert {"x-api-key", "content-type"}.isdisjoint(transport.requests[0].headers)


async def test_an_answer_of_any_status_is_an_answer_and_is_judged(bench, reply) -> None:
    upstream, _ = bench.upstream([reply(503), reply(404)])
    assert [(await upstream.ask(ask())).status for _ in range(2)] == [503, 404]
    judged = [(e.status, e.outcome) for e in bench.recorder.events if isinstance(e, Exchange)]
    assert judged == [(503, Outcome.FAILURE), (404, Outcome.SUCCESS)]
    assert upstream.reached is True


async def test_faults_are_told_apart_and_counted(bench) -> None:
    upstream, _ = bench.upstream([Fault.CONNECT, Fault.RESET, Fault.TIMEOUT])
    for fault in (Fault.CONNECT, Fault.RESET, Fault.TIMEOUT):
        with pytest.raises(Unanswered) as caught:
            await upstream.ask(ask())
        assert caught.value.fault is fault
    assert upstream.breaker.snapshot("u", "k")["consecutive_failures"] == 3
    assert upstream.reached is False


async def test_our_own_patience_running_out_says_nothing_about_the_upstream(bench) -> None:
    upstream, _ = bench.upstream([Fault.TIMEOUT], threshold=1)
    with pytest.raises(Unanswered):
        await upstream.ask(ask(Operation.POLL, patience=True))
    assert upstream.breaker.snapshot("u", "k")["state"] == "closed"


@pytest.mark.parametrize(
    ("operation", "state"), [(Operation.SUBMIT, "open"), (Operation.POLL, "closed")]
)
async def test_a_slow_submit_says_something_and_a_long_poll_is_slow_by_design(
    bench, reply, operation: Operation, state: str
) -> None:
    def slowly(_):
        bench.clock.advance(10)
        return reply()

    upstream, _ = bench.upstream(slowly, trip=TripSettings(slow_s=5, minimum_calls=2))
    for _ in range(2):
        await upstream.ask(ask(operation))
    assert upstream.breaker.snapshot("u", "k")["state"] == state


async def test_an_open_breaker_stops_all_but_heartbeats(bench, reply) -> None:
    upstream, transport = bench.upstream([reply(500), reply(), reply(500)], threshold=1)
    await upstream.ask(ask())
    with pytest.raises(CircuitOpen):
        await upstream.ask(ask())
    assert (await upstream.ask(ask(Operation.HEARTBEAT))).status == 200
    assert (await upstream.ask(ask(Operation.PROBE))).status == 500
    assert len(transport.requests) == 3
    assert upstream.breaker.snapshot("u", "k")["counts"]["failure"] == 1


async def test_a_cancelled_probe_gives_its_place_back(bench, reply) -> None:
    upstream, transport = bench.upstream([reply(500), reply(200)], threshold=1)
    await upstream.ask(ask())
    bench.clock.advance(31)
    hanging = asyncio.Event()
    transport_send = transport.send

    async def hang(request):
        await hanging.wait()

    transport.send = hang
    probe = asyncio.create_task(upstream.ask(ask()))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.wait([probe])
    transport.send = transport_send
    assert (await upstream.ask(ask())).status == 200
    assert upstream.breaker.snapshot("u", "k")["state"] == "closed"


async def test_what_the_upstream_takes_for_the_time_is_told(bench, reply) -> None:
    upstream, _ = bench.upstream([reply(date="Tue, 24 Nov 2026 12:00:00 GMT"), reply()])
    for _ in range(2):
        await upstream.ask(ask())
    dates = [e.date for e in bench.recorder.events if isinstance(e, Exchange)]
    assert dates == ["Tue, 24 Nov 2026 12:00:00 GMT", None]


def test_json_answers_are_read_or_explained(reply) -> None:
    assert json_of(reply(200, {"a": 1})) == {"a": 1}
    with pytest.raises(ApiKeyRefused, match="bad key"):
        json_of(reply(401, {"detail": "bad key"}))
    with pytest.raises(UpstreamFault, match=r"answered 400: \{\}"):
        json_of(reply(400))
    with pytest.raises(UpstreamFault, match="not with a JSON object"):
        json_of(reply(200, b"<html>"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "no"}, "no"),
        ({"error": "bad"}, "bad"),
        ({"detail": [1]}, '{"detail":[1]}'),
        (b"<html>" + b"x" * 600, "<html>" + "x" * 494),
        (b"", "(no text)"),
        ([1], "[1]"),
    ],
)
def test_what_an_error_answer_says(reply, body: object, said: str) -> None:
    assert detail_of(reply(500, body)) == said


async def test_a_throttled_key_holds_back_its_submits_and_nothing_else(bench, reply) -> None:
    """Whichever call was refused: a lane's, a sample's, or an SDK's own."""
    upstream, transport = bench.upstream([reply(429, retry_after="7"), reply(), reply(), reply()])
    await upstream.ask(ask())
    assert upstream.pace.snapshot()["held_back_s"] == 7
    for operation in (Operation.POLL, Operation.QUERY):
        await upstream.ask(ask(operation))
    assert len(transport.requests) == 3
    held = asyncio.create_task(upstream.ask(ask()))
    await turned_away(bench, held, 6.9)
    bench.clock.advance(0.1)
    await held
    assert len(transport.requests) == 4
    assert upstream.pace.snapshot()["submits_out"] == 0


async def test_an_sdks_own_refusal_holds_back_the_keys_submits(bench, reply) -> None:
    upstream, _ = bench.upstream([reply(429, retry_after="7"), reply()])
    passing = Passing("POST", "/api/v1/asample", [], b"{}", 5.0)
    async with upstream.relay(Operation.SUBMIT, passing) as passed:
        assert passed.status == 429
    held = asyncio.create_task(upstream.ask(ask()))
    await turned_away(bench, held, 6.9)
    bench.clock.advance(0.1)
    await held


async def turned_away(bench, held: asyncio.Task[object], seconds: float) -> None:
    """Hold that a submit has not gone yet after so long."""
    await asyncio.sleep(0)
    bench.clock.advance(seconds)
    await asyncio.sleep(0)
    assert not held.done()


async def test_leave_that_was_waited_for_is_sent_with_once(bench, reply) -> None:
    """The first submit goes at once; its repetition waits for a turn of its own."""
    upstream, transport = bench.upstream([reply(), reply()])
    async with upstream.pace.leave("lane") as leave:
        assert upstream.pace.snapshot()["submits_out"] == 1
        await upstream.ask(ask(leave=leave))
        await upstream.ask(ask(leave=leave))
    assert len(transport.requests) == 2
    assert upstream.pace.snapshot()["submits_out"] == 0


async def test_another_timeout_holds_from_the_next_request_on(bench, reply) -> None:
    upstream, transport = bench.upstream([reply(), reply(), reply()])
    await upstream.ask(ask())
    upstream.reconfigure(timeout_s=7)
    await upstream.ask(ask())
    await upstream.ask(ask(timeout_s=3))
    assert [request.timeout_s for request in transport.requests] == [60, 7, 3]


async def test_a_trip_names_the_call_whose_request_it_was(bench, reply) -> None:
    """Ours, and an SDK's that is passed on."""
    mine, theirs = Whose("r1", "k"), Whose("r2", "k")
    passing = Passing("POST", "/api/v1/asample", [], b"{}", 5.0, calls=(theirs,))
    upstream, _ = bench.upstream([reply(503)], threshold=1)
    await upstream.ask(ask(behalf=Behalf((mine,))))
    upstream, _ = bench.upstream([reply(503)], threshold=1)
    async with upstream.relay(Operation.SUBMIT, passing):
        pass
    trips = [event for event in bench.recorder.events if isinstance(event, Transition)]
    assert [trip.calls for trip in trips] == [(mine,), (theirs,)]
