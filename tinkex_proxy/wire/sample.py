"""Sampling answers of an upstream, whichever flavour, as one thing.

Where there is no number (a prompt's first token has no logprob) protobuf has a NaN and JSON a null;
callers get null. Of the `k` likeliest tokens an unused cell holds a sentinel, which is left out.
"""

import math
import struct
from typing import Annotated, Final, Literal

import msgspec
from google.protobuf.message import DecodeError
from msgspec import Meta

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.output import is_protobuf
from tinkex_proxy.wire.packing import unpack, unpack_integers

__all__ = ["SampleAnswer", "SampledSequence", "decode_sample"]

_NO_LOGPROB: Final = -99999.0  # the sentinel of an unused cell, beside token 0
_STOP_REASONS: Final[dict[int, Literal["stop", "length"]]] = {
    pb.STOP_REASON_STOP: "stop",
    pb.STOP_REASON_LENGTH: "length",
}

TopK = list[list[tuple[int, float]] | None]


class SampledSequence(msgspec.Struct, frozen=True):
    """One continuation."""

    tokens: Annotated[list[int], Meta(examples=[[15, 27, 3]])]
    stop_reason: Annotated[str, Meta(description="stop or length", examples=["length"])]
    logprobs: Annotated[list[float] | None, Meta(examples=[[-0.5, -1.25, -0.125]])] = None
    topk_logprobs: TopK | None = None


class SampleAnswer(msgspec.Struct, frozen=True):
    """The answer to a `sample`."""

    sequences: list[SampledSequence]
    prompt_logprobs: Annotated[
        list[float | None] | None, Meta(description="null where there is none")
    ] = None
    topk_prompt_logprobs: TopK | None = None
    prompt_cache_hit_tokens: int = 0


_JSON: Final = msgspec.json.Decoder(SampleAnswer)


def decode_sample(body: bytes, content_type: str) -> SampleAnswer:
    """Decode an upstream's answer.

    Raises:
        UpstreamFault: it is not a sampling answer.
    """
    try:
        return _from_protobuf(body) if is_protobuf(content_type) else _JSON.decode(body)
    except (DecodeError, msgspec.DecodeError, UnicodeDecodeError, struct.error) as error:
        raise UpstreamFault(f"The upstream's sampling answer cannot be read: {error}.") from None


def _from_protobuf(body: bytes) -> SampleAnswer:
    message = pb.SampleResponse.FromString(body)
    prompt = unpack("f", message.prompt_logprobs)
    return SampleAnswer(
        sequences=[_sequence(sequence) for sequence in message.sequences],
        prompt_logprobs=[None if math.isnan(p) else p for p in prompt] or None,
        topk_prompt_logprobs=_topk(message, "topk_prompt_logprobs"),
        prompt_cache_hit_tokens=message.prompt_cache_hit_tokens,
    )


def _sequence(message: pb.SampledSequence) -> SampledSequence:
    reason = _STOP_REASONS.get(message.stop_reason)
    if reason is None:
        raise UpstreamFault(f"The upstream gave the unknown stop_reason {message.stop_reason}.")
    return SampledSequence(
        tokens=unpack_integers(message.tokens),
        stop_reason=reason,
        logprobs=unpack("f", message.logprobs) or None,
        topk_logprobs=_topk(message, "topk_sampled_logprobs"),
    )


def _topk(
    whole: pb.SampleResponse | pb.SampledSequence,
    name: Literal["topk_prompt_logprobs", "topk_sampled_logprobs"],
) -> TopK | None:
    """One list of (token, logprob) for each position, likeliest first; None where nothing is."""
    if not whole.HasField(name):
        return None
    message: pb.TopkLogprobs = getattr(whole, name)
    width = message.k
    tokens, logprobs = unpack_integers(message.token_ids), unpack("f", message.logprobs)
    if not len(tokens) == len(logprobs) == width * message.length:
        raise UpstreamFault("The upstream's top-k logprobs are not of the size that they claim.")
    cells = list(zip(tokens, logprobs, strict=True))
    rows = (cells[at : at + width] for at in range(0, len(cells), width or 1))
    return [[cell for cell in row if cell != (0, _NO_LOGPROB)] or None for row in rows] or None
