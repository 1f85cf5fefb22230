"""An upstream that costs next to nothing: what a proxy can do shows only before one.

It answers the calls of the Tinker wire without doing them, from bytes that were made beforehand,
and looks no further into a request than its answer needs: its path, the end of its body, the name
of a future, how many datums there are. The name says what the result is, so nothing is kept. It
takes training data in protobuf, as the hosted service and SkyRL do.

`--blind` answers everything with the same few bytes, once its body has come; `--delay` holds each
answer to a question for a result (blind: to anything) for that long, and `GET /held` tells how many
are being held. `--tokens` says how many numbers a training answer has for each datum.

Run as `python -m tests.bench.compare.sink PORT`.
"""

import argparse
import asyncio
import re
import struct
from functools import cache

import msgspec
import uvloop

from tests.bench.compare.calls import TOKENS
from tinkex_proxy.wire import tinker_pb2 as pb

JSON, PROTOBUF = "application/json", "application/x-protobuf"
BACKLOG = 4096
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model_seq_id": *([0-9]+)')
_FUTURE = re.compile(rb'"request_id": *"([a-z]+)([0-9]*)"')
# Each datum names it once.
_OF_A_DATUM = b"target_tokens"


def answer(body: bytes, content_type: str = JSON, status: str = "200 OK") -> bytes:
    """An answer as it goes over the wire."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def fields(**named: object) -> bytes:
    """The same with a JSON object."""
    return answer(msgspec.json.encode(named))


FIXED = {
    "healthz": fields(status="ok"),
    "get_server_capabilities": fields(supported_models=[{"model_name": "sink"}]),
    "client/config": fields(),
    "create_session": fields(type="create_session", session_id="session"),
    "session_heartbeat": fields(type="session_heartbeat"),
    "create_sampling_session": fields(
        type="create_sampling_session", sampling_session_id="sampling"
    ),
    "asample": fields(request_id="sample"),
    "optim_step": fields(request_id="step"),
}
BLIND = fields(request_id="answered-without-a-look", type="blind")
NOT_FOUND = answer(b'{"detail":"the sink has no such call"}', status="404 Not Found")
NOT_JSON = answer(b'{"detail":"protobuf, please"}', status="415 Unsupported Media Type")
NO_LENGTH = answer(b'{"detail":"say how long it is"}', status="411 Length Required")


@cache
def result(kind: bytes, number: int, each: int = TOKENS) -> bytes:
    """What a future comes to.

    Args:
        kind: of what.
        number: how many datums it has, or which model it is.
        each: how many tokens each datum has.
    """
    if kind == b"trained":
        return answer(_trained(number, each), PROTOBUF)
    if kind == b"sample":
        tokens = struct.pack(f"<{TOKENS}i", *range(TOKENS))
        logprobs = struct.pack(f"<{TOKENS}f", *([-0.5] * TOKENS))
        drawn = pb.SampledSequence(
            stop_reason=pb.STOP_REASON_LENGTH, tokens=tokens, logprobs=logprobs
        )
        return answer(pb.SampleResponse(sequences=[drawn]).SerializeToString(), PROTOBUF)
    if kind == b"model":
        model_id = f"model-{number}" if number else "model"
        return fields(type="create_model", model_id=model_id, base_model="sink", is_lora=True)
    return fields(type="optim_step", metrics={})


def _trained(datums: int, tokens: int) -> bytes:
    message = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord")
    record = message.loss_fn_outputs.add(type_tag="ArrayRecord", num_datums=datums)
    size = 4 * tokens
    ends = [size * number for number in range(datums + 1)]
    for name, value in (("logprobs", -0.5), ("elementwise_loss", 0.5)):
        field = record.fields[name]
        field.data = struct.pack(f"<{tokens}f", *([value] * tokens)) * datums
        field.offsets = struct.pack(f"<{datums + 1}q", *ends)
        field.dtype = pb.DTYPE_FLOAT32
    message.metrics["loss:sum"] = 0.5 * tokens * datums
    return message.SerializeToString()


def looked_at(head: bytes, body: bytes, each: int = TOKENS) -> bytes:
    """The answer to a request; `each` as in `result`."""
    path = head[head.index(b" ") + 1 : head.index(b" HTTP/")].decode("latin-1")
    name = path.removeprefix("/api/v1/")
    if (fixed := FIXED.get(name)) is not None:
        return fixed
    if name == "create_model":
        numbered = _MODEL.search(body)
        return fields(request_id=f"model{int(numbered[1]) if numbered else 0}")
    if name == "retrieve_future" and (asked := _FUTURE.search(body)):
        return result(asked[1], int(asked[2] or 0), each)
    if name == "forward_backward":
        if b"x-protobuf" not in head:
            return NOT_JSON
        return fields(request_id=f"trained{body.count(_OF_A_DATUM)}")
    return NOT_FOUND


class Sink:
    """What all connections share.

    Args:
        blind: whether all is answered the same.
        delay_s: how long answers are held.
        tokens: how many each datum has.
    """

    def __init__(self, *, blind: bool, delay_s: float, tokens: int = TOKENS) -> None:
        self.blind = blind
        self.delay_s = delay_s
        self.tokens = tokens
        self.held = 0


class Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._head = b""
        self._pieces: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            begun = self._pieces.pop() + data if self._pieces else data
            self._head, end, data = begun.partition(b"\r\n\r\n")
            if not end:
                self._pieces.append(begun)  # the head goes on
                return
            length = _LENGTH.search(self._head)
            if not length and self._head.startswith(b"POST"):
                self._transport.write(NO_LENGTH)
                self._transport.close()
                return
            self._missing = int(length[1]) if length else 0
        self._missing -= len(data)
        if not self._sink.blind:
            self._pieces.append(data)
        if self._missing <= 0:
            self._end()

    def _end(self) -> None:
        head, body = self._head, b"".join(self._pieces)
        self._missing = 0
        self._pieces.clear()
        sink = self._sink
        if head.startswith(b"GET /held"):
            self._transport.write(fields(held=sink.held))
            return
        said = BLIND if sink.blind else looked_at(head, body, sink.tokens)
        posted = sink.blind and head.startswith(b"POST")
        if (
            sink.delay_s
            and (posted or b"/retrieve_future " in head)
            and b'"request_id":"model' not in body
        ):
            sink.held += 1
            asyncio.get_running_loop().call_later(sink.delay_s, self._release, said)
        else:
            self._transport.write(said)

    def _release(self, said: bytes) -> None:
        self._sink.held -= 1
        if not self._transport.is_closing():
            self._transport.write(said)


async def serve(port: int, sink: Sink) -> None:
    """Answer until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(sink), "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


def main() -> None:
    """Run one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--blind", action="store_true")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    chosen = parser.parse_args()
    sink = Sink(blind=chosen.blind, delay_s=chosen.delay, tokens=chosen.tokens)
    uvloop.run(serve(chosen.port, sink))


if __name__ == "__main__":
    main()
