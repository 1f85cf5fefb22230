"""Training bodies of both flavours, read into arrays, and the answers written from them.

Written from the protocol, without our own `wire` decoders: a sandbox that shared them would agree
with their mistakes. Only the protobuf message classes are the same.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from tinkex_proxy.sandbox.losses import LOSSES, NEEDS
from tinkex_proxy.sandbox.model import VOCABULARY
from tinkex_proxy.wire import tinker_pb2 as pb

__all__ = ["BadRequest", "Datum", "Outputs", "Training", "from_json", "from_protobuf", "tokens_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class BadRequest(Exception):  # noqa: N818 - named as HTTP names it
    """Refused at submit.

    Attributes:
        status: 400, 404, 409 or 422.
    """

    def __init__(self, detail: str, status: int = 422) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True, slots=True)
class Datum:
    """One sequence: its tokens and the loss's inputs, by name."""

    tokens: Ints
    inputs: Mapping[str, Floats]

    @property
    def targets(self) -> Ints:
        """The tokens that are scored."""
        return self.inputs["target_tokens"].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Training:
    """A `forward_backward` or `forward`."""

    model_id: str
    seq_id: int | None
    data: tuple[Datum, ...]
    loss_fn: str
    loss_fn_config: Mapping[str, float]
    forward_only: bool


@dataclass(frozen=True, slots=True)
class Outputs:
    """Per datum: log-probabilities of the targets and loss per token, and metrics over all."""

    logprobs: list[Floats]
    losses: list[Floats]
    metrics: Mapping[str, float]

    def to_json(self) -> dict[str, object]:
        """The answer of the JSON generation."""
        records = [
            {"logprobs": _tensor(logprobs), "elementwise_loss": _tensor(losses)}
            for logprobs, losses in zip(self.logprobs, self.losses, strict=True)
        ]
        return {
            "loss_fn_output_type": "ArrayRecord",
            "loss_fn_outputs": records,
            "metrics": dict(self.metrics),
        }

    def to_protobuf(self) -> bytes:
        """The answer of the protobuf generation."""
        message = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord")
        record = message.loss_fn_outputs.add(type_tag="ArrayRecord", num_datums=len(self.logprobs))
        for name, arrays in (("logprobs", self.logprobs), ("elementwise_loss", self.losses)):
            blocks = [array.astype("<f4").tobytes() for array in arrays]
            ends = [0, *itertools.accumulate(map(len, blocks))]
            field = record.fields[name]
            field.data = b"".join(blocks)
            field.offsets = np.asarray(ends, dtype="<i8").tobytes()
            field.dtype = pb.DTYPE_FLOAT32
        for name, value in self.metrics.items():
            message.metrics[name] = value
        return message.SerializeToString()


def _tensor(values: Floats) -> dict[str, object]:
    data = [float(value) for value in values.astype(np.float32)]
    return {"data": data, "dtype": "float32", "shape": [len(data)]}


def from_protobuf(body: bytes) -> Training:
    """Read a protobuf body."""
    try:
        message = pb.ForwardBackwardRequest.FromString(body)
    except DecodeError as error:
        raise BadRequest(f"not a ForwardBackwardRequest: {error}") from None
    data = []
    for datum in message.data:
        chunks = [_tokens(chunk) for chunk in datum.model_input]
        inputs = {name: _array(tensor) for name, tensor in datum.loss_fn_inputs.items()}
        data.append(_datum(chunks, inputs))
    config = dict(message.loss_fn_config)
    config |= {name: value.number for name, value in message.loss_fn_config_v2.items()}
    return _checked(
        Training(
            message.model_id,
            message.seq_id or None,
            tuple(data),
            message.loss_fn,
            config,
            message.forward_only,
        )
    )


def _tokens(chunk: pb.Chunk) -> npt.NDArray[np.int32]:
    if chunk.WhichOneof("chunk") != "encoded_text":
        raise BadRequest("the sandbox reads text only")
    try:
        return np.frombuffer(chunk.encoded_text.tokens, dtype="<i4")
    except ValueError as error:
        raise BadRequest(f"a chunk's bytes are not int32 tokens: {error}") from None


def _array(tensor: pb.Tensor) -> Floats:
    if tensor.WhichOneof("encoding") != "dense":
        raise BadRequest("the sandbox takes dense tensors only")
    kind = "<f4" if tensor.dtype == pb.DTYPE_FLOAT32 else "<i8"
    try:
        return np.frombuffer(tensor.dense, dtype=kind).astype(np.float64)
    except ValueError as error:
        raise BadRequest(f"a tensor's bytes do not fit its dtype: {error}") from None


class _Tensor(msgspec.Struct):
    data: list[float]


class _Chunk(msgspec.Struct):
    tokens: list[int]
    type: str = "encoded_text"


class _Input(msgspec.Struct):
    chunks: list[_Chunk]


class _Datum(msgspec.Struct):
    model_input: _Input
    loss_fn_inputs: dict[str, _Tensor]


class _Call(msgspec.Struct):
    data: list[_Datum]
    loss_fn: str
    loss_fn_config: dict[str, float] | None = None


class _Body(msgspec.Struct):
    model_id: str
    seq_id: int | None = None
    forward_backward_input: _Call | None = None
    forward_input: _Call | None = None


def from_json(body: bytes) -> Training:
    """Read a JSON body, of `forward_backward` or of `forward`."""
    try:
        form = msgspec.json.decode(body, type=_Body)
    except msgspec.DecodeError as error:
        raise BadRequest(str(error)) from None
    call = form.forward_backward_input or form.forward_input
    if call is None:
        raise BadRequest("forward_backward_input or forward_input is missing")
    data = tuple(
        _datum(
            [tokens_of(chunk.tokens) for chunk in datum.model_input.chunks],
            {name: np.asarray(t.data, np.float64) for name, t in datum.loss_fn_inputs.items()},
        )
        for datum in call.data
    )
    config = call.loss_fn_config or {}
    forward_only = form.forward_backward_input is None
    return _checked(Training(form.model_id, form.seq_id, data, call.loss_fn, config, forward_only))


def _datum(chunks: Sequence[npt.NDArray[np.int32] | Ints], inputs: Mapping[str, Floats]) -> Datum:
    return Datum(tokens_of(np.concatenate(chunks) if chunks else np.zeros(0)), inputs)


def tokens_of(values: npt.ArrayLike) -> Ints:
    """Token ids as an array.

    Raises:
        BadRequest: one is outside of the vocabulary.
    """
    try:
        tokens = np.asarray(values, dtype=np.int64)
    except OverflowError:
        raise BadRequest(f"a token is outside of the vocabulary of {VOCABULARY}", 400) from None
    outside = tokens[(tokens < 0) | (tokens >= VOCABULARY)]
    if outside.size:
        raise BadRequest(f"token {outside[0]} is outside of the vocabulary of {VOCABULARY}", 400)
    return tokens


def _checked(call: Training) -> Training:
    if call.loss_fn not in LOSSES:
        raise BadRequest(f"unknown loss_fn {call.loss_fn!r}; known are {', '.join(LOSSES)}")
    for number, datum in enumerate(call.data):
        for name in NEEDS[call.loss_fn]:
            if name not in datum.inputs:
                raise BadRequest(f"datum {number} lacks {name}, which {call.loss_fn} needs", 400)
        for name, values in datum.inputs.items():
            if len(values) != len(datum.tokens):
                raise BadRequest(
                    f"datum {number}: {len(values)} {name} for {len(datum.tokens)} tokens", 400
                )
        tokens_of(datum.inputs["target_tokens"])
    return call
