"""What is taken on and what is shed, over real sockets: both doors, before and while bodies come.

Only the lane of one model is stalled, so what is held there stays held until the test lets it go.
"""

import asyncio
import contextlib
import json

import pytest
import zstandard

from tests.api.driving import datum, stalled, train
from tests.api.sdk_calls import lane_of, message, result, send, step
from tinkex_proxy.wire import tinker_pb2 as pb

FULL = {"max_calls": 1}


def head_of(path: str, length: int | None, *more: str) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", framing, *more]
    return "\r\n".join([*lines, "", ""]).encode()


class Wire:
    """One connection, written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], dict[str, object]]:
        """Status, headers and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, json.loads(body)


@pytest.fixture
async def connect():
    """Open connections by hand: `await connect(proxy)`; all are closed in the end."""
    wires: list[Wire] = []

    async def opened(proxy) -> Wire:
        host, _, port = proxy.url.removeprefix("http://").partition(":")
        wires.append(Wire(*await asyncio.open_connection(host, int(port))))
        return wires[-1]

    yield opened
    for wire in wires:
        wire.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await wire.writer.wait_closed()


def held(proxy) -> tuple[int, int]:
    usage = proxy.proxy.services.intake.usage
    return usage.size_bytes, usage.calls


async def until_held(proxy, *, calls: int) -> None:
    while held(proxy)[1] != calls:
        await asyncio.sleep(0)


async def until_nothing_is_held(proxy) -> None:
    """An answer may be here a moment before its call has ended there."""
    while held(proxy) != (0, 0):
        await asyncio.sleep(0)


def breaker_counts(proxy) -> object:
    account = proxy.proxy.services.accounts.of_default()
    return account.upstream.breaker.snapshot("u", "k")["counts"]


def refused(answer, setting: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert setting in answer.json()["detail"]
    assert answer.headers["retry-after"] == "1"


class Waiting:
    """A model whose submits do not come through, and a call that waits for that."""

    def __init__(self, proxy, model_id: str) -> None:
        self.model_id = model_id
        self._release = stalled(proxy, model_id)
        self.call = asyncio.create_task(train(proxy, model_id, [datum(1)]))

    async def end(self) -> None:
        self._release.set()
        assert (await self.call).status_code == 200


@pytest.fixture
def waiting(start, upstream):
    """A proxy with some bounds, and one call in flight on it."""

    async def make(**bounds: float) -> tuple[object, Waiting]:
        proxy = await start(await upstream(), admission=bounds)
        one = Waiting(proxy, await proxy.create())
        await until_held(proxy, calls=1)
        return proxy, one

    return make


# Before and while a body comes


async def test_a_body_that_does_not_fit_is_refused_before_it_is_read(waiting, connect) -> None:
    """Not a byte of it has been sent; the call in flight goes on, and no breaker hears of it."""
    proxy, one = await waiting(max_bytes=70_000_000)
    before = breaker_counts(proxy)
    wires = [await connect(proxy) for _ in range(2)]
    for wire in wires:
        await wire.say(head_of("/v1/forward_backward", 60_000_000))
    told = [asyncio.create_task(wire.answer()) for wire in wires]
    ((late, *_), _) = await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
    status, headers, problem = late.result()
    assert (status, problem["code"], headers["retry-after"]) == (503, "overloaded", "1")
    assert "admission.max_bytes 70000000" in problem["detail"]
    assert sum(task.done() for task in told) == 1
    for task, wire in zip(told, wires, strict=True):
        task.cancel()
        wire.writer.transport.abort()
    while held(proxy)[0] > 60_000_000:
        await asyncio.sleep(0)
    await one.end()
    assert breaker_counts(proxy)["failure"] == before["failure"] == 0
    await until_nothing_is_held(proxy)


async def test_who_asks_before_it_sends_is_not_told_to_go_on(waiting, connect) -> None:
    """`Expect: 100-continue`, as curl sends it with large bodies."""
    proxy, one = await waiting(**FULL)
    wire = await connect(proxy)
    await wire.say(head_of("/v1/forward_backward", 5000, "Expect: 100-continue"))
    assert (await wire.answer())[0] == 503
    await one.end()


async def test_a_body_of_unknown_length_is_refused_when_it_has_grown_too_long(
    waiting, connect
) -> None:
    proxy, one = await waiting(max_bytes=1_000_000)
    wire = await connect(proxy)
    await wire.say(head_of("/v1/forward_backward", None))
    for _ in range(3):
        await wire.say(b"%x\r\n%b\r\n" % (400_000, b" " * 400_000))
    status, _, problem = await wire.answer()
    assert (status, problem["code"]) == (503, "overloaded")
    assert held(proxy)[0] < 400_000
    await one.end()


async def test_a_body_that_stops_coming_gives_its_room_back(start, upstream, connect) -> None:
    proxy = await start(await upstream(), admission={"body_timeout_s": 0.05})
    for said in (b"", b'{"model_id"'):
        wire = await connect(proxy)
        await wire.say(head_of("/v1/optim_step", 60_000_000) + said)
        status, _, problem = await wire.answer()
        assert (status, problem["code"], problem["retryable"]) == (408, "body_stalled", True)
        await until_nothing_is_held(proxy)


async def test_a_call_holds_its_body_and_what_is_made_of_it(waiting) -> None:
    """Twice its encoding: measured, its numbers take as much again beside it."""
    proxy, one = await waiting()
    while lane_of(proxy, one.model_id)["on_wire_seq"] is None:
        await asyncio.sleep(0)
    driver = proxy.proxy.services.accounts.of_default().model(one.model_id).driver
    (call,) = driver._calls.values()
    sent = {"model_id": one.model_id, "data": [datum(1)]}
    body = len(json.dumps(sent, separators=(",", ":")))
    assert held(proxy) == (body + 2 * len(call.work.fragment.data), 1)
    shown = (await proxy.client.get("/lanes")).json()
    assert shown["admission"]["bytes_held"] == shown["keys"][0]["bytes_held"] == held(proxy)[0]
    assert shown["admission"]["calls_in_flight"] == shown["keys"][0]["calls_in_flight"] == 1
    await one.end()


async def test_what_is_made_of_a_body_may_not_fit_either(waiting) -> None:
    proxy, one = await waiting(max_bytes=1500)
    answer = await train(proxy, one.model_id, [datum(n) for n in range(8)])
    refused(answer, "admission.max_bytes")
    assert lane_of(proxy, one.model_id)["depth"] == 0
    await one.end()
    assert (await train(proxy, one.model_id, [datum(n) for n in range(8)])).status_code == 200
    await until_nothing_is_held(proxy)


# Calls


async def test_more_calls_than_may_be_in_flight_are_refused_before_their_bodies(
    waiting, connect
) -> None:
    proxy, one = await waiting(**FULL)
    wire = await connect(proxy)
    await wire.say(head_of("/v1/forward_backward", 5000))
    status, _, problem = await wire.answer()
    assert (status, problem["code"]) == (503, "overloaded")
    assert "1 calls are in flight" in problem["detail"]
    assert "admission.max_calls" in problem["detail"]
    for path in ("/lanes", "/metrics", "/health/live", "/v1/futures/none"):
        assert (await proxy.client.get(path)).status_code != 503, path
    await one.end()
    assert (await train(proxy, one.model_id, [datum(1)])).status_code == 200


async def test_a_repetition_of_a_running_call_is_none_more(start, upstream) -> None:
    """It has to be read to be known; a new call under a key of its own is shed then."""
    proxy = await start(await upstream(), admission=FULL)
    model_id = await proxy.create()
    release = stalled(proxy, model_id)
    first = asyncio.create_task(train(proxy, model_id, [datum(1)], Idempotency_Key="a"))
    await until_held(proxy, calls=1)
    again = asyncio.create_task(train(proxy, model_id, [datum(1)], Idempotency_Key="a"))
    refused(await train(proxy, model_id, [datum(1)], Idempotency_Key="b"), "admission.max_calls")
    release.set()
    assert (await again).json() == (await first).json()
    new = await train(proxy, model_id, [datum(1)], Idempotency_Key="b")
    assert new.status_code == 200, "what was shed may come again under its key"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/forward_backward", b"{"),
        ("/v1/optim_step", b'{"model_id": "nope"}'),
        ("/v1/optim_step", b'{"model_id": "nope"}' + b" " * 70_000_000),
        ("/api/v1/optim_step", b"{"),
        ("/api/v1/optim_step", b'{"model_id": "nope", "seq_id": 1}'),
        ("/api/v1/made/up", b"?" * 2_000_000),
        ("/api/v1/retrieve_future", b'{"request_id": "tinkex-nope"}'),
    ],
)
async def test_whatever_becomes_of_a_call_it_holds_nothing_afterwards(proxy, path, body) -> None:
    answer = await proxy.post(path, body)
    assert answer.status_code >= 400
    await until_nothing_is_held(proxy)


async def test_a_caller_that_hangs_up_gives_everything_back(proxy, connect) -> None:
    for path in ("/v1/optim_step", "/api/v1/optim_step", "/api/v1/asample"):
        wire = await connect(proxy)
        await wire.say(head_of(path, 5000) + b"{")
        while held(proxy)[0] == 0:
            await asyncio.sleep(0)
        wire.writer.transport.abort()
        await until_nothing_is_held(proxy)


# Lanes


async def test_a_lane_has_a_depth_and_another_is_not_touched(waiting) -> None:
    proxy, one = await waiting(max_lane_depth=2, max_calls=10)
    requests = [{"model_id": one.model_id, "data": [datum(n)]} for n in range(4)]
    while lane_of(proxy, one.model_id)["on_wire_seq"] is None:
        await asyncio.sleep(0)
    batch = asyncio.create_task(proxy.post("/v1/forward_backward_batch", {"requests": requests}))
    while lane_of(proxy, one.model_id)["depth"] < 2:
        await asyncio.sleep(0)
    refused(await train(proxy, one.model_id, [datum(1)]), "admission.max_lane_depth")
    other = await proxy.create()
    assert (await train(proxy, other, [datum(1)])).status_code == 200
    metrics = (await proxy.client.get("/metrics")).text
    assert "tinkex_proxy_inflight_requests 2.0" in metrics
    await one.end()
    told = [item.get("error", {}).get("code") for item in (await batch).json()["results"]]
    assert told == [None, None, "overloaded", "overloaded"]
    shown = (await proxy.client.get("/lanes")).json()["admission"]
    assert shown["shed"] == {"bytes": 0, "calls": 0, "lane": 3}
    metrics = (await proxy.client.get("/metrics")).text
    assert 'tinkex_proxy_shed_total{reason="lane"} 3.0' in metrics
    assert "tinkex_proxy_inflight_requests 0.0" in metrics
    assert "tinkex_proxy_inflight_bytes 0.0" in metrics
    assert "tinkex_proxy_inflight_calls 0.0" in metrics


async def test_a_call_of_more_parts_than_a_lane_is_deep_has_a_way(start, upstream) -> None:
    proxy = await start(
        await upstream(),
        admission={"max_lane_depth": 2},
        batching={"max_datums": 2, "max_batch_size": 2},
    )
    model_id = await proxy.create()
    answer = await train(proxy, model_id, [datum(n) for n in range(8)])
    assert answer.status_code == 200, answer.text


# SDKs


async def test_sdks_are_shed_as_they_can_bear_it(waiting) -> None:
    """Submits 503 with a jittered wait, samples 429, polls and heartbeats never."""
    proxy, one = await waiting(**FULL)
    before = breaker_counts(proxy)
    sample = {"sampling_session_id": "s", "seq_id": 0}
    for path, body, status in (
        ("create_session", {"sdk_version": "0.38.0"}, 503),
        ("optim_step", {"model_id": one.model_id, "seq_id": 1}, 503),
        ("asample", sample, 429),
    ):
        answer = await proxy.post(f"/api/v1/{path}", body)
        assert (answer.status_code, set(answer.json())) == (status, {"detail"}), path
        assert 1000 <= float(answer.headers["retry-after-ms"]) <= 1500
        assert "admission.max_calls" in answer.json()["detail"]
    assert breaker_counts(proxy) == before
    sample["padding"] = "x" * 2_000_000
    for path in ("retrieve_future", "session_heartbeat"):
        answer = await proxy.post(f"/api/v1/{path}", {"request_id": "7", "session_id": "7"})
        assert answer.status_code not in {429, 503}, path
    await one.end()


async def test_a_poll_longer_than_any_is_held_to_the_bounds(waiting, connect) -> None:
    """Else polls would be the way to fill memory."""
    proxy, one = await waiting(max_bytes=70_000_000, max_calls=10)
    taken = proxy.proxy.services.intake.hold("other")
    taken.grow(69_000_000)
    wire = await connect(proxy)
    await wire.say(head_of("/api/v1/retrieve_future", 60_000_000))
    status, _, told = await wire.answer()
    assert (status, told["type"]) == (408, "try_again")
    await one.end()


async def test_a_number_that_was_shed_comes_again_and_all_run_in_their_order(proxy_of_one) -> None:
    """Shed means not come: no call behind it passes it, and it is no repetition afterwards."""
    proxy, model_id, release = proxy_of_one
    first = asyncio.create_task(send(proxy, message(model_id, 1, 1)))
    await until_held(proxy, calls=1)
    shed = await step(proxy, model_id, 2)
    assert shed.status_code == 503
    release.set()
    await result(proxy, await first)
    await until_held(proxy, calls=0)
    early = await step(proxy, model_id, 3)
    assert lane_of(proxy, model_id)["held_back"] == 1
    again = await step(proxy, model_id, 2)
    for answer in (again, early):
        assert "error" not in (await result(proxy, answer)).json()
    assert lane_of(proxy, model_id)["next_seq"] == 4


async def test_what_others_wait_for_is_taken_on_though_calls_are_used_up(proxy_of_one) -> None:
    """The pieces of one large call come at once, the first one last."""
    proxy, model_id, release = proxy_of_one
    release.set()
    second = await send(proxy, message(model_id, 2, 2))
    assert (await send(proxy, message(model_id, 3, 3))).status_code == 503
    first = await send(proxy, message(model_id, 1, 1))
    for answer in (first, second):
        assert (await result(proxy, answer)).status_code == 200
    await until_nothing_is_held(proxy)


async def test_a_submit_whose_answer_was_lost_is_answered_though_calls_are_used_up(
    proxy_of_one,
) -> None:
    """The SDK sends it again: the same future."""
    proxy, model_id, _ = proxy_of_one
    early = await send(proxy, message(model_id, 2, 2))
    assert held(proxy)[1] == 1
    again = await send(proxy, message(model_id, 2, 2))
    assert again.json() == early.json()


async def test_early_pieces_leave_room_for_the_first(start, upstream) -> None:
    """With all bytes held by those that wait for it, nobody could read it."""
    piece = pb.ForwardBackwardRequest.FromString(message("session_00000001:train:0", 2, 1))
    size = 2 * len(piece.SerializeToString())
    limits = {"max_bytes": 10 * size}
    proxy = await start(await upstream(), admission=limits, server={"max_body_bytes": 1024})
    model_id = await proxy.create()
    sent = [await send(proxy, message(model_id, number, 1)) for number in range(2, 14)]
    taken = [answer for answer in sent if answer.status_code == 200]
    assert 6 <= len(taken) <= 9
    assert sent[: len(taken)] == taken
    assert {answer.status_code for answer in sent[len(taken) :]} == {503}
    first = await send(proxy, message(model_id, 1, 1))
    for answer in (first, *taken):
        assert (await result(proxy, answer)).status_code == 200


async def test_a_compressed_body_holds_what_it_unpacks_to(proxy_of_one) -> None:
    proxy, model_id, _ = proxy_of_one
    plain = json.dumps({"model_id": model_id, "seq_id": 2, "padding": " " * 100_000}).encode()
    packed = zstandard.compress(plain)
    await proxy.post("/api/v1/optim_step", packed, Content_Encoding="zstd")
    assert held(proxy) == (len(packed) + len(plain), 1)


@pytest.fixture
async def proxy_of_one(start, upstream):
    """A proxy that takes on one call at a time, a model, and what lets its submits through."""
    proxy = await start(await upstream(), admission=FULL)
    model_id = await proxy.create()
    return proxy, model_id, stalled(proxy, model_id)
