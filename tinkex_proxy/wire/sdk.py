"""The official SDKs' own requests to a model, and answers in the form they ask for.

SDKs since 0.25 write training requests in protobuf, older ones in JSON; every other request is
JSON. A request is opened as far as its number and no further: its datums are spliced, never decoded
(where the upstream speaks the same flavour), and fields that we do not know stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.cut import read_cut
from tinkex_proxy.wire.datum import Flavour, parse_datums
from tinkex_proxy.wire.faults import check_utf8, read_body
from tinkex_proxy.wire.loss import own_loss_of
from tinkex_proxy.wire.merge import Fragment, encode_fragment, fragment_of_protobuf
from tinkex_proxy.wire.output import Output, decode_output, encode_json, is_protobuf

__all__ = [
    "SdkOrder",
    "SdkTraining",
    "address_of",
    "json_answer",
    "own_answer",
    "own_json_answer",
    "read_order",
    "read_training",
]

_LOSS_SUM: Final = "loss:sum"


@dataclass(frozen=True, slots=True)
class SdkTraining:
    """A `forward_backward` or `forward` of an SDK.

    Attributes:
        model_id: the model.
        seq_id: its place in its sender's count, or None where the sender does not count.
        fragment: its datums, as they will be sent.
        loss_fn: the loss.
        loss_fn_config: its parameters.
        forward_only: whether no gradient is wanted.
        unknown: whether it has fields that we do not know; it then shares with nobody.
        body: the request as it came, where the upstream takes it so.
    """

    model_id: str
    seq_id: int | None
    fragment: Fragment
    loss_fn: str
    loss_fn_config: Mapping[str, float | str] | bytes
    forward_only: bool
    unknown: bool = False
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class SdkOrder:
    """Any other request to a model.

    Attributes:
        model_id: the model, or None where the request makes one.
        seq_id: its place in its sender's count, or None.
        fields: all of it but these two, as texts.
        body: the request as it came.
    """

    model_id: str | None
    seq_id: int | None
    fields: Mapping[str, msgspec.Raw]
    body: bytes


class _Input(msgspec.Struct):
    data: list[msgspec.Raw]
    loss_fn: str = "cross_entropy"
    loss_fn_config: dict[str, float | str] | None = None


class _Request(msgspec.Struct):
    model_id: str
    seq_id: int | None = None
    forward_backward_input: _Input | None = None
    forward_input: _Input | None = None


class _Address(msgspec.Struct):
    model_id: str | None = None
    seq_id: int | None = None


_REQUEST: Final = msgspec.json.Decoder(_Request)
_ADDRESS: Final = msgspec.json.Decoder(_Address)
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_training(body: bytes, content_type: str, upstream: Flavour) -> SdkTraining:
    """Open a training request.

    Args:
        body: the request.
        content_type: what it says it is.
        upstream: the flavour that the upstream takes; a JSON request is rewritten for a protobuf
            upstream, and goes as it is otherwise.

    Raises:
        InvalidJson, InvalidRequest: it is no training request, or an empty one.
    """
    training = _of_protobuf(body) if is_protobuf(content_type) else _of_json(body, upstream)
    if not training.fragment.datums:
        raise InvalidRequest("The request has no data; send at least one datum.")
    _check_number(training.seq_id)
    return training


def read_order(body: bytes) -> SdkOrder:
    """Open any other request to a model.

    Raises:
        InvalidJson, InvalidRequest: it is not a JSON object, or its address is of another type.
    """
    address = read_body(_ADDRESS, body)
    fields = _FIELDS.decode(body)
    _check_number(address.seq_id)
    rest = {name: value for name, value in fields.items() if name not in {"model_id", "seq_id"}}
    return SdkOrder(address.model_id, address.seq_id, rest, body)


def address_of(body: bytes, content_type: str) -> tuple[str | None, int | None]:
    """Which model a request is for and which number it has, whatever else is wrong with it."""
    try:
        if is_protobuf(content_type):
            head, _ = fragment_of_protobuf(body)
            return head.model_id, head.seq_id or None
        address = _ADDRESS.decode(body)
    except (InvalidRequest, msgspec.DecodeError, UnicodeDecodeError):
        return None, None
    return address.model_id, address.seq_id


def json_answer(body: bytes) -> bytes:
    """A protobuf training answer in the JSON that older SDKs read."""
    return encode_json(_fields(decode_output(body, "application/x-protobuf")))


def own_answer(part: bytes, training: SdkTraining) -> bytes:
    """One caller's part of a shared protobuf answer, with the loss of its own datums.

    The metrics of a shared request are nobody's own, and an SDK that cuts a large call into pieces
    would add a `:sum` up once for each. Its custom losses look for `loss:sum`, so that is computed.
    """
    output = decode_output(part, "application/x-protobuf")
    loss = own_loss_of(training.loss_fn, training.fragment.data, output)
    if loss is None:
        return part
    return part + pb.ForwardBackwardOutput(metrics={_LOSS_SUM: loss}).SerializeToString()


def own_json_answer(output: Output) -> bytes:
    """One caller's part of a shared JSON answer, with the loss of its own datums."""
    loss = own_loss_of("", b"", output)
    own = Output(
        output.loss_fn_output_type, output.records, {} if loss is None else {_LOSS_SUM: loss}
    )
    return encode_json(_fields(own))


def _check_number(seq_id: int | None) -> None:
    if seq_id is not None and seq_id < 1:
        raise InvalidRequest(f"`/seq_id` is {seq_id}; calls to a model are counted from 1.")


def _of_protobuf(body: bytes) -> SdkTraining:
    head, fragment = fragment_of_protobuf(body)
    return SdkTraining(
        head.model_id,
        head.seq_id or None,  # proto3 does not tell a zero from nothing, and counts begin at 1
        fragment,
        head.loss_fn,
        head.loss_fn_config,
        head.forward_only,
        unknown=bool(head.unknown),
        body=body,
    )


def _of_json(body: bytes, upstream: Flavour) -> SdkTraining:
    check_utf8(body)
    use = partial(_training, body=body, upstream=upstream)
    unread = upstream is Flavour.JSON
    return read_cut(
        _REQUEST, body, b"data", lambda request: _given(request).data, use, unread=unread
    )


def _given(request: _Request) -> _Input:
    given = request.forward_backward_input or request.forward_input
    if given is None:
        raise InvalidRequest("The request has neither forward_backward_input nor forward_input.")
    return given


def _training(
    request: _Request, data: Sequence[msgspec.Raw], *, body: bytes, upstream: Flavour
) -> SdkTraining:
    given = _given(request)
    return SdkTraining(
        request.model_id,
        request.seq_id,
        _fragment(data, given.loss_fn, upstream),
        given.loss_fn,
        given.loss_fn_config or {},
        request.forward_backward_input is None,
        body=body if upstream is Flavour.JSON else None,
    )


def _fragment(data: Sequence[msgspec.Raw], loss_fn: str, upstream: Flavour) -> Fragment:
    if upstream is Flavour.JSON:
        joined = b",".join(map(memoryview, data))
        return Fragment(Flavour.JSON, joined, len(data), len(joined))
    at = ("forward_backward_input", "data")
    return encode_fragment(parse_datums(data, loss_fn=loss_fn, at=at), upstream)


def _fields(output: Output) -> dict[str, object]:
    return {
        "loss_fn_output_type": output.loss_fn_output_type,
        "loss_fn_outputs": output.records,
        "metrics": output.metrics,
    }
