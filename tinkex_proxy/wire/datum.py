"""Datums and prompts as callers write them, checked and packed for either flavour.

A datum comes in Tinker's own form (`model_input`, `loss_fn_inputs`) or in the short form (`tokens`,
`targets`, `weights`). Both are decoded by one struct in one pass, and packing the numbers is the
range check. What would make an upstream fail a whole batch is refused here, where it costs only the
caller who sent it: after admission nobody can tell whose datum it was.

The short form is only a way to write: it means one text chunk, `target_tokens` as int64 and
`weights` as float32, all ones when left out. A datum in Tinker's form keeps its text, which goes to
an upstream of the JSON flavour as it is.
"""

import enum
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET

from tinkex_proxy.wire.content import (
    Chunk,
    DmelChunk,
    ImageChunk,
    Tensor,
    TextChunk,
    chunk_of,
    pack_at,
    tensor_of,
)
from tinkex_proxy.wire.faults import Steps, read, refuse
from tinkex_proxy.wire.forms import LONG_FORM, SHORT_FORM, DatumForm, ModelInput, Tokens
from tinkex_proxy.wire.packing import unpack

__all__ = [
    "Datum",
    "DmelChunk",
    "Flavour",
    "ImageChunk",
    "Prompt",
    "Tensor",
    "TextChunk",
    "parse_datums",
    "parse_prompt",
]

_DATUM: Final = msgspec.json.Decoder(DatumForm)
_TOKENS: Final = msgspec.json.Decoder(Tokens)
_MODEL_INPUT: Final = msgspec.json.Decoder(ModelInput)

# What a caller called `target_tokens` and `weights`, by "is Tinker's own form".
_NAMES: Final[dict[bool, dict[str, Steps]]] = {
    False: {"target_tokens": ("targets",), "weights": ("weights",)},
    True: {
        "target_tokens": ("loss_fn_inputs", "target_tokens"),
        "weights": ("loss_fn_inputs", "weights"),
    },
}
_ONE: Final = b"\x00\x00\x80\x3f"  # 1.0 as float32


class Flavour(enum.Enum):
    """What an upstream takes training bodies in."""

    PROTOBUF = "protobuf"
    JSON = "json"


class Datum(msgspec.Struct, frozen=True):
    """One training example.

    Attributes:
        chunks: what the model reads.
        tensors: what the loss reads, by name.
        text: the datum as the caller wrote it, if that is Tinker's own form.
    """

    chunks: tuple[Chunk, ...]
    tensors: dict[str, Tensor]
    text: msgspec.Raw | None = None

    @property
    def tokens(self) -> int:
        """How many tokens it has; an image counts as many as the caller expects."""
        return sum(_length(chunk) for chunk in self.chunks)

    @property
    def weights(self) -> list[float] | None:
        """The weight of each token in the loss; None where it has none, or sparse ones."""
        tensor = self.tensors.get("weights")
        return None if tensor is None or tensor.is_sparse else tensor.values()

    def json(self) -> bytes:
        """The datum in Tinker's own JSON."""
        if self.text is not None:
            return bytes(self.text)
        tokens = [
            token
            for chunk in self.chunks
            if isinstance(chunk, TextChunk)
            for token in unpack("i", chunk.packed)
        ]
        return msgspec.json.encode(
            {
                "model_input": {"chunks": [{"type": "encoded_text", "tokens": tokens}]},
                "loss_fn_inputs": {
                    name: {"data": tensor.values(), "dtype": tensor.dtype, "shape": tensor.shape}
                    for name, tensor in self.tensors.items()
                },
            }
        )


class Prompt(msgspec.Struct, frozen=True):
    """What to continue.

    Attributes:
        tokens: how many tokens it has; an image counts as many as the caller expects.
        json: a `ModelInput` ready for the upstream.
    """

    tokens: int
    json: msgspec.Raw


def parse_datums(
    raw: Sequence[msgspec.Raw], *, loss_fn: str = "cross_entropy", at: Steps = ("data",)
) -> tuple[Datum, ...]:
    """Decode and check datums.

    Args:
        raw: their texts.
        loss_fn: the loss they are for; `cross_entropy` needs a target and a weight for each token.
        at: where their array stands in the caller's body.

    Raises:
        InvalidRequest: one is not sound; says which.
    """
    if not raw:
        raise refuse(at, "is empty; send at least one datum.")
    return tuple(_datum(text, loss_fn, (*at, index)) for index, text in enumerate(raw))


def parse_prompt(raw: msgspec.Raw, at: Steps = ("prompt",)) -> Prompt:
    """Decode and check a prompt: an array of tokens, or Tinker's `ModelInput`."""
    kind = memoryview(raw).tobytes()[:1]
    if kind == b"[":
        tokens = read(_TOKENS, raw, at)
        pack_at(at, "i", tokens)
        text = b'{"chunks":[{"type":"encoded_text","tokens":%b}]}' % bytes(raw)
        return Prompt(len(tokens), msgspec.Raw(text))
    if kind != b"{":
        raise refuse(at, "must be an array of token ids, or a ModelInput with `chunks`.")
    chunks = _chunks(read(_MODEL_INPUT, raw, at), at)
    return Prompt(sum(_length(chunk) for chunk in chunks if chunk is not None), raw)


def _datum(text: msgspec.Raw, loss_fn: str, at: Steps) -> Datum:
    form = read(_DATUM, text, at)
    short = [name for name in SHORT_FORM if getattr(form, name) is not UNSET]
    long = [name for name in LONG_FORM if getattr(form, name) is not UNSET]
    if short and long:
        raise refuse(at, f"mixes `{short[0]}` of the short form with `{long[0]}` of Tinker's own.")
    datum = _from_long(form, text, at) if long else _from_short(form, at)
    if not any(isinstance(chunk, ImageChunk | DmelChunk) for chunk in datum.chunks):
        each = bool(short) or loss_fn == "cross_entropy"
        _check_tokens(datum, at, _NAMES[bool(long)], each=each)
    return datum


def _from_short(form: DatumForm, at: Steps) -> Datum:
    if form.tokens is UNSET or form.targets is UNSET:
        lacking = "tokens" if form.tokens is UNSET else "targets"
        raise refuse(
            at,
            f'lacks `{lacking}`. A datum is {{"tokens":[...],"targets":[...]}}, with '
            '"weights":[...] if you like, or has `model_input` and `loss_fn_inputs`.',
        )
    targets = pack_at((*at, "targets"), "q", form.targets)
    if form.weights is UNSET or form.weights is None:
        packed, count = _ONE * len(form.targets), len(form.targets)
    else:
        packed, count = pack_at((*at, "weights"), "f", form.weights), len(form.weights)
    return Datum(
        (TextChunk(pack_at((*at, "tokens"), "i", form.tokens)),),
        {
            "target_tokens": Tensor(targets, "int64", (len(form.targets),)),
            "weights": Tensor(packed, "float32", (count,)),
        },
    )


def _from_long(form: DatumForm, text: msgspec.Raw, at: Steps) -> Datum:
    if form.model_input is UNSET or form.loss_fn_inputs is UNSET:
        lacking = "model_input" if form.model_input is UNSET else "loss_fn_inputs"
        raise refuse(at, f"lacks `{lacking}`.")
    chunks = []
    here = (*at, "model_input")
    for index, chunk in enumerate(_chunks(form.model_input, here)):
        if chunk is None:
            raise refuse(
                (*here, "chunks", index),
                "points to an image elsewhere; a training call takes the image itself.",
            )
        chunks.append(chunk)
    tensors = {
        name: tensor_of(name, tensor, (*at, "loss_fn_inputs", name))
        for name, tensor in form.loss_fn_inputs.items()
    }
    return Datum(tuple(chunks), tensors, text)


def _chunks(form: ModelInput, at: Steps) -> list[Chunk | None]:
    here = (*at, "chunks")
    return [chunk_of(chunk, (*here, index)) for index, chunk in enumerate(form.chunks)]


def _check_tokens(datum: Datum, at: Steps, names: dict[str, Steps], *, each: bool) -> None:
    """A datum of text has tokens, and with `each` one target and one weight for each of them."""
    tokens = datum.tokens
    if not tokens:
        raise refuse(at, "has no tokens.")
    for name, inside in names.items():
        tensor = datum.tensors.get(name)
        if not each or tensor is None or tensor.is_sparse or len(tensor.shape) != 1:
            continue
        if tensor.shape[0] != tokens:
            raise refuse(
                (*at, *inside),
                f"has length {tensor.shape[0]}; there are {tokens} tokens, "
                "and cross_entropy needs one for each.",
            )


def _length(chunk: Chunk) -> int:
    if isinstance(chunk, TextChunk):
        return chunk.tokens
    return (chunk.expected_tokens or 0) if isinstance(chunk, ImageChunk) else 0
