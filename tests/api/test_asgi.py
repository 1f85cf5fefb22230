import asyncio
import json
from types import SimpleNamespace

import pytest

from tinkex_proxy.api.asgi import BodyLimits, CallerLeft, headers_of, read_body, send_answer
from tinkex_proxy.errors import BodyStalled, PayloadTooLarge
from tinkex_proxy.runtime.ledger import Answer

LIMITS = BodyLimits(10, 5.0)


def receiving(*chunks: bytes, cut: bool = False):
    messages = [
        {"type": "http.request", "body": chunk, "more_body": n < len(chunks) - 1 or cut}
        for n, chunk in enumerate(chunks)
    ]
    if cut:
        messages.append({"type": "http.disconnect"})

    async def receive():
        return messages.pop(0)

    return receive


def test_headers_by_name_the_last_one_wins() -> None:
    scope = {"headers": [(b"a", b"1"), (b"b", b"\xe9"), (b"a", b"2")]}
    assert headers_of(scope) == {"a": "2", "b": "é"}
    assert headers_of({"headers": None}) == {}


async def test_a_body_is_read_to_its_end() -> None:
    assert await read_body({}, receiving(b"ab", b"", b"cd"), LIMITS) == b"abcd"
    assert await read_body({}, receiving(b""), LIMITS) == b""


async def test_a_body_that_is_cut_off_is_nobodys_call() -> None:
    """Half a body must not be taken for the call: it would own the call's Idempotency-Key."""
    with pytest.raises(CallerLeft):
        await read_body({}, receiving(b"ab", cut=True), LIMITS)


async def test_a_body_announced_too_large_is_not_read() -> None:
    async def receive():
        raise AssertionError

    with pytest.raises(PayloadTooLarge, match="11 bytes or more; the limit is 10"):
        await read_body({"content-length": "11"}, receive, LIMITS)


async def test_a_body_that_turns_out_too_large_is_not_read_on() -> None:
    receive = receiving(b"123456", b"123456", b"never read")
    with pytest.raises(PayloadTooLarge):
        await read_body({"content-length": "nonsense"}, receive, LIMITS)
    assert (await receive())["body"] == b"never read"


async def test_a_body_is_counted_as_it_was_announced_or_as_it_comes() -> None:
    held = []
    hold = SimpleNamespace(grow=held.append)
    await read_body({"content-length": "4"}, receiving(b"ab", b"cd"), LIMITS, hold)
    await read_body({}, receiving(b"ab", b"cd"), LIMITS, hold)
    assert held == [4, 2, 4, 0, 2, 4]


async def test_a_body_of_which_nothing_comes_any_more_is_not_waited_for() -> None:
    first = receiving(b"ab", cut=True)

    async def receive():
        if receive.asked:
            await asyncio.Event().wait()
        receive.asked = True
        return await first()

    receive.asked = False
    with pytest.raises(BodyStalled, match=r"admission.body_timeout_s"):
        await read_body({}, receive, BodyLimits(10, 0.001))


async def test_an_answer_goes_out_with_its_headers() -> None:
    sent = []

    async def send(message) -> None:
        sent.append(message)

    await send_answer(send, Answer(202, b"{}", {"location": "/x"}), {"x-request-id": "r"})
    assert (sent[0]["status"], sent[1]["body"]) == (202, b"{}")
    assert dict(sent[0]["headers"]) == {
        b"content-type": b"application/json",
        b"content-length": b"2",
        b"location": b"/x",
        b"x-request-id": b"r",
    }


async def test_an_upload_that_was_cut_off_leaves_its_idempotency_key_free(proxy) -> None:
    """The connection dies while the body is sent; the caller repeats the call under its key."""
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    body = json.dumps({"model_id": await proxy.create()}).encode()
    head = "POST /v1/optim_step HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: k\r\n"
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:10])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    again = {"content": body, "headers": {"idempotency-key": "k"}}
    repeated = await proxy.client.post("/v1/optim_step", **again)
    assert repeated.status_code == 200, repeated.text
