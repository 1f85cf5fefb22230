"""Faults carried out: what the client sees, and whether the sandbox acted."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from tests.sandbox.conftest import Clock, Sandbox
from tinkex_proxy.sandbox.faults import Duplicate, Error, Fault, Latency, Lost, Paused, Reset, Slow
from tinkex_proxy.sandbox.injection import FaultInjector
from tinkex_proxy.sandbox.plans import Plan
from tinkex_proxy.sandbox.rehearsal import Rehearsal

HIT = "http://sandbox/api/v1/x"
ANSWER = b"0123456789" * 10


class Acting:
    """An application that remembers what it was given, and has one answer."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.bodies.append(body)
        headers = [(b"content-length", str(len(ANSWER)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})


class Injected:
    """An application behind faults, whose time only passes when it is slept away."""

    def __init__(self, *faults: Fault) -> None:
        self.app = Acting()
        self.slept: list[float] = []
        self.sent: list[Message] = []
        rehearsal = Rehearsal(Plan(faults=faults), Clock())
        self.injector = FaultInjector(self.app, rehearsal, lambda: None, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def post(self, body: bytes = b"{}", url: str = HIT) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app_or_watch)) as client:
            return await client.post(url, content=body)

    async def app_or_watch(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def watched(message: Message) -> None:
            self.sent.append(message)
            await send(message)

        await self.injector(scope, receive, watched)


async def test_without_faults_nothing_is_touched() -> None:
    injected = Injected()
    assert (await injected.post()).content == ANSWER
    assert injected.slept == []


async def test_what_rehearses_is_not_hit() -> None:
    injected = Injected(Error(path="/*"))
    assert (await injected.post(url="http://sandbox/sandbox/faults")).status_code == 200
    assert (await injected.post()).status_code == 503


async def test_latency_comes_before_acting() -> None:
    injected = Injected(Latency(delay_s=5))
    assert (await injected.post()).content == ANSWER
    assert injected.slept == [5]


@pytest.mark.parametrize(("when", "acted"), [("before", 0), ("after", 1)])
async def test_an_error_before_or_after_acting(when: str, acted: int) -> None:
    injected = Injected(Error(status=502, when=when))
    answer = await injected.post()
    assert answer.status_code == 502
    assert answer.json() == {"detail": f"A fault of the sandbox, {when} acting"}
    assert len(injected.app.bodies) == acted
    assert "retry-after" not in answer.headers


async def test_a_429_says_when_to_come_back() -> None:
    """`retry-after` has whole seconds only; the SDKs read `retry-after-ms` too."""
    answer = await Injected(Error(status=429, retry_after_s=1.25)).post()
    assert answer.status_code == 429
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1250")


async def test_a_duplicate_acts_twice_on_the_same_bytes_and_answers_once() -> None:
    injected = Injected(Duplicate())
    assert (await injected.post(b"abc")).content == ANSWER
    assert injected.app.bodies == [b"abc", b"abc"]
    assert [m["type"] for m in injected.sent] == ["http.response.start", "http.response.body"]


async def test_a_duplicate_can_be_lost_too() -> None:
    injected = Injected(Duplicate(), Error(when="after"))
    assert (await injected.post(b"abc")).status_code == 503
    assert injected.app.bodies == [b"abc", b"abc"]


async def test_a_late_duplicate_comes_after_the_answer() -> None:
    injected = Injected(Duplicate(lag_s=3))
    assert (await injected.post(b"abc")).content == ANSWER
    assert injected.app.bodies == [b"abc", b"abc"]
    assert injected.slept == [3]
    assert [m["type"] for m in injected.sent] == ["http.response.start", "http.response.body"]


async def test_a_late_duplicate_comes_though_the_first_answer_was_an_error() -> None:
    injected = Injected(Duplicate(lag_s=3), Error(when="after"))
    assert (await injected.post(b"abc")).status_code == 503
    assert injected.app.bodies == [b"abc", b"abc"]


async def test_a_slow_request_is_taken_in_at_its_speed_and_acted_on() -> None:
    injected = Injected(Slow(bytes_per_s=10, body="request"))
    assert (await injected.post(b"abcde")).content == ANSWER
    assert sum(injected.slept) == pytest.approx(0.5)
    assert injected.app.bodies == [b"abcde"]
    assert len([m for m in injected.sent if m["type"] == "http.response.body"]) == 1


async def test_a_slow_body_comes_in_pieces_with_pauses() -> None:
    injected = Injected(Slow(bytes_per_s=300))
    answer = await injected.post()
    assert answer.content == ANSWER
    sizes = [len(m["body"]) for m in injected.sent if m["type"] == "http.response.body"]
    assert sizes == [30, 30, 30, 10]
    assert injected.slept == pytest.approx([0.1, 0.1, 0.1])


async def test_a_paused_poll_is_held_and_told_why() -> None:
    injected = Injected(Paused(path="all", reason="out of chips", hold_s=7))
    answer = await injected.post(b'{"request_id": "41"}')
    assert answer.status_code == 408
    assert answer.json() == {
        "type": "try_again",
        "request_id": "41",
        "queue_state": "paused_capacity",
        "queue_state_reason": "out of chips",
    }
    assert injected.slept == [7]
    assert injected.app.bodies == []


async def test_a_paused_poll_without_a_readable_body_is_told_too() -> None:
    answer = await Injected(Paused(path="all", state="paused_rate_limit")).post(b"\x00")
    assert answer.json()["queue_state"] == "paused_rate_limit"
    assert answer.json()["request_id"] is None


@pytest.mark.parametrize(
    ("fault", "acted"),
    [
        (Reset(), 0),
        (Reset(when="after"), 1),
        (Reset(when="midway"), 1),
        (Lost(hold_s=0.001), 1),
        (Lost(when="before", hold_s=0.001), 0),
    ],
)
async def test_where_the_server_cannot_reset_the_application_fails(
    fault: Fault, acted: int
) -> None:
    """On a real socket: tests/sandbox/test_abort.py."""
    injected = Injected(fault)
    with pytest.raises(ConnectionResetError):
        await injected.post()
    assert len(injected.app.bodies) == acted


async def test_a_lost_answer_is_held_until_the_client_leaves() -> None:
    injected = Injected(Lost())
    left = asyncio.Event()
    body: list[Message] = [{"type": "http.request", "body": b"{}"}]

    async def receive() -> Message:
        if body:
            return body.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        pytest.fail(f"answered with {message}")

    scope = {"type": "http", "path": "/api/v1/x", "headers": []}
    held = asyncio.get_running_loop().create_task(injected.injector(scope, receive, send))
    for _ in range(9):
        await asyncio.sleep(0)
    assert injected.app.bodies == [b"{}"]
    assert not held.done()
    left.set()
    await held


Start = Callable[..., object]


async def test_a_submit_that_is_delivered_twice_counts_once(start: Start, training) -> None:
    plan = Plan(faults=(Duplicate(path="training"),))
    sandbox: Sandbox = await start(faults=plan)
    model_id = await sandbox.model()
    await sandbox.call("forward_backward", training(model_id, 1))
    seen = await sandbox.inspect(model_id)
    assert (seen["datums_since_step"], seen["next_seq"]) == (1, 2)


async def test_a_submit_whose_answer_was_an_error_after_acting_counts_once(
    start: Start, training
) -> None:
    plan = Plan(faults=(Error(when="after", path="training", count=1),))
    sandbox: Sandbox = await start(faults=plan)
    model_id = await sandbox.model()
    body = training(model_id, 1)
    assert (await sandbox.post("forward_backward", body)).status_code == 503
    await sandbox.call("forward_backward", body)
    assert (await sandbox.inspect(model_id))["datums_since_step"] == 1
