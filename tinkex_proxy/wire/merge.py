"""Many callers' datums as one request.

A protobuf message is the concatenation of its fields: repeated ones append, and of a scalar the
last one counts. So a fragment is the bytes of its datums, as they will be sent; merging joins
fragments and writes the scalars behind them, `seq_id` at the very end. Nothing is decoded again,
and fields that a newer SDK adds to its datums survive. JSON texts are joined by commas in the same
spirit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.chunk import estimate_bytes
from tinkex_proxy.wire.content import Chunk, ImageChunk, Tensor, TextChunk
from tinkex_proxy.wire.datum import Datum, Flavour
from tinkex_proxy.wire.scan import FORWARD_ONLY, SEQ_ID, Head, scan, varint

__all__ = [
    "Fragment",
    "Head",
    "Submit",
    "config_bytes",
    "encode_fragment",
    "fragment_of_protobuf",
    "merge",
]

_FORWARD_BACKWARD: Final = "/api/v1/forward_backward"
_FORWARD: Final = "/api/v1/forward"
_DTYPES: Final = {"float32": pb.DTYPE_FLOAT32, "int64": pb.DTYPE_INT64}


@dataclass(frozen=True, slots=True)
class Fragment:
    """One caller's datums, as they will be sent.

    Attributes:
        flavour: what for.
        data: protobuf: entries of field 3, back to back, and fields we do not know. JSON: the
            datums' texts, joined by commas.
        datums: how many they are.
        size_bytes: how much of the upstream's limit they use.
    """

    flavour: Flavour
    data: bytes
    datums: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Submit:
    """A request to send.

    Attributes:
        path: where to.
        content_type: what `body` is.
        body: the bytes.
    """

    path: str
    content_type: str
    body: bytes


def encode_fragment(datums: Sequence[Datum], flavour: Flavour) -> Fragment:
    """Encode datums once, for one flavour."""
    if flavour is Flavour.JSON:
        data = b",".join(datum.json() for datum in datums)
    else:
        data = b"".join(map(_entry, datums))
    return Fragment(flavour, data, len(datums), sum(map(estimate_bytes, datums)))


def fragment_of_protobuf(body: bytes) -> tuple[Head, Fragment]:
    """Take an SDK's request apart without decoding its datums.

    Raises:
        InvalidRequest: the body is no protobuf message of this kind.
    """
    head, data, datums = scan(body)
    return head, Fragment(Flavour.PROTOBUF, data, datums, len(data))


def config_bytes(config: Mapping[str, float | str]) -> bytes:
    """A loss's parameters as `Head.loss_fn_config` has them, so that equal ones compare equal."""
    return scan(_config(config))[0].loss_fn_config if config else b""


def merge(  # noqa: PLR0913 - what an upstream request consists of
    fragments: Sequence[Fragment],
    *,
    model_id: str,
    seq_id: int,
    loss_fn: str,
    loss_fn_config: Mapping[str, float | str] | bytes,
    forward_only: bool,
    flavour: Flavour,
) -> Submit:
    """Make one request of fragments of the same flavour, loss and configuration.

    Args:
        fragments: the callers' parts, in order.
        model_id: the model.
        seq_id: the request's place in the model's order.
        loss_fn: the loss.
        loss_fn_config: its parameters; `Head.loss_fn_config` goes through as it is (protobuf only).
        forward_only: whether no gradient is wanted.
        flavour: the upstream's.
    """
    if flavour is Flavour.JSON:
        key = "forward_input" if forward_only else "forward_backward_input"
        head = msgspec.json.encode({"model_id": model_id, "seq_id": seq_id})[:-1]
        tail = msgspec.json.encode({"loss_fn": loss_fn, "loss_fn_config": loss_fn_config or None})
        data = b",".join(fragment.data for fragment in fragments if fragment.datums)
        body = b'%b,"%b":{"data":[%b],%b}' % (head, key.encode(), data, tail[1:])
        return Submit(_FORWARD if forward_only else _FORWARD_BACKWARD, "application/json", body)
    scalars = pb.ForwardBackwardRequest(model_id=model_id, loss_fn=loss_fn)
    config = loss_fn_config if isinstance(loss_fn_config, bytes) else _config(loss_fn_config)
    parts = [fragment.data for fragment in fragments]
    parts += [scalars.SerializeToString(), config]
    if forward_only:
        parts.append(FORWARD_ONLY + varint(1))
    parts.append(SEQ_ID + varint(seq_id))
    return Submit(_FORWARD_BACKWARD, "application/x-protobuf", b"".join(parts))


def _config(config: Mapping[str, float | str]) -> bytes:
    """Numbers are written twice: servers that know no `loss_fn_config_v2` read the first map."""
    message = pb.ForwardBackwardRequest()
    for name, value in config.items():
        if isinstance(value, str):
            message.loss_fn_config_v2[name].text = value
        else:
            message.loss_fn_config[name] = value
            message.loss_fn_config_v2[name].number = value
    return message.SerializeToString(deterministic=True)


def _entry(datum: Datum) -> bytes:
    """Its entry of field 3. One message of all datums would hold them twice while it is written."""
    request = pb.ForwardBackwardRequest()
    _write(request.data.add(), datum)
    return request.SerializeToString(deterministic=True)


def _write(message: pb.Datum, datum: Datum) -> None:
    for chunk in datum.chunks:
        _write_chunk(message.model_input.add(), chunk)
    for name, tensor in datum.tensors.items():
        _write_tensor(message.loss_fn_inputs[name], tensor)


def _write_chunk(message: pb.Chunk, chunk: Chunk) -> None:
    if isinstance(chunk, TextChunk):
        message.encoded_text.tokens = chunk.packed
    elif isinstance(chunk, ImageChunk):
        message.image.data = chunk.data
        message.image.format = chunk.format
        if chunk.expected_tokens is not None:
            message.image.expected_tokens = chunk.expected_tokens
    else:
        message.dmel.dmel = chunk.dmel


def _write_tensor(message: pb.Tensor, tensor: Tensor) -> None:
    message.dtype = _DTYPES[tensor.dtype]
    message.shape.extend(tensor.shape)
    if tensor.sparse_crow_indices is None or tensor.sparse_col_indices is None:
        message.dense = tensor.data
        return
    message.sparse_csr.values = tensor.data
    message.sparse_csr.crow_indices = tensor.sparse_crow_indices
    message.sparse_csr.col_indices = tensor.sparse_col_indices
