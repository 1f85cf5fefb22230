"""Cutting a call that is too large for one request, by the SDK's own rule.

A piece ends before the datum that would take it over the bytes, or when it has the most datums. A
datum that is too large by itself goes alone: only the upstream can say whether that is too much.
"""

from collections.abc import Iterable

from tinkex_proxy.wire.content import Chunk, ImageChunk, Tensor, TextChunk
from tinkex_proxy.wire.datum import Datum

__all__ = ["chunk", "estimate_bytes"]


def chunk(datums: Iterable[Datum], *, max_datums: int, max_bytes: int) -> list[tuple[Datum, ...]]:
    """The datums in order, in as few pieces within the limits as come of filling each in turn."""
    pieces: list[tuple[Datum, ...]] = []
    piece: list[Datum] = []
    size = 0
    for datum in datums:
        added = estimate_bytes(datum)
        if piece and (size + added > max_bytes or len(piece) == max_datums):
            pieces.append(tuple(piece))
            piece, size = [], 0
        piece.append(datum)
        size += added
    return [*pieces, tuple(piece)] if piece else pieces


def estimate_bytes(datum: Datum) -> int:
    """How much of the upstream's limit a datum uses: its numbers and images, no framing."""
    return sum(map(_of_chunk, datum.chunks)) + sum(map(_of_tensor, datum.tensors.values()))


def _of_chunk(part: Chunk) -> int:
    if isinstance(part, TextChunk):
        return len(part.packed)
    return len(part.data if isinstance(part, ImageChunk) else part.dmel)


def _of_tensor(tensor: Tensor) -> int:
    indices = (tensor.sparse_crow_indices or b"", tensor.sparse_col_indices or b"")
    return len(tensor.data) + sum(map(len, indices))
