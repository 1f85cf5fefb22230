"""What a datum is made of, checked and packed: chunks of input, and tensors.

floats are kept as the bytes they are sent as. A list of a million Python integers weighs 40 MB, the
same tokens packed 4 MB, and a call may wait in its lane for seconds.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import UNSET

from tinkex_proxy.wire.faults import Steps, refuse
from tinkex_proxy.wire.forms import CHUNK_FIELDS, ChunkForm, Dtype, TensorData
from tinkex_proxy.wire.packing import SIZES, Code, first_misfit, pack, unpack

__all__ = [
    "CODES",
    "Chunk",
    "DmelChunk",
    "ImageChunk",
    "Tensor",
    "TextChunk",
    "chunk_of",
    "pack_at",
    "tensor_of",
]

CODES: Final[dict[Dtype, Code]] = {"float32": "f", "int64": "q"}

_DTYPES: Final[dict[str, Dtype]] = {"target_tokens": "int64", "weights": "float32"}
_HOLDS: Final[dict[Code, str]] = {
    "i": "an int32: -2147483648 to 2147483647",
    "q": "an int64: a whole number of at most 63 bits",
    "f": "a float32: at most 3.4e38 in size",
}
_SHOWN: Final = 40  # characters of a bad value that its error repeats


class TextChunk(msgspec.Struct, frozen=True):
    """Tokens.

    Attributes:
        packed: int32, little-endian.
    """

    packed: bytes

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.packed) // SIZES["i"]


class ImageChunk(msgspec.Struct, frozen=True):
    """An encoded image.

    Attributes:
        data: the file's bytes.
        format: `png` or `jpeg`.
        expected_tokens: how many tokens the caller expects it to become, if it said so.
    """

    data: bytes
    format: str
    expected_tokens: int | None = None


class DmelChunk(msgspec.Struct, frozen=True):
    """A piece of audio, as serialized by the SDK."""

    dmel: bytes


Chunk = TextChunk | ImageChunk | DmelChunk


class Tensor(msgspec.Struct, frozen=True):
    """floats with a shape; sparse ones in compressed rows.

    Attributes:
        data: the (listed) values in their dtype, little-endian.
        dtype: what they are.
        shape: the dense shape.
        sparse_crow_indices: row pointers as int64, or None for a dense tensor.
        sparse_col_indices: column indices as int64, or None for a dense tensor.
    """

    data: bytes
    dtype: Dtype
    shape: tuple[int, ...]
    sparse_crow_indices: bytes | None = None
    sparse_col_indices: bytes | None = None

    @property
    def is_sparse(self) -> bool:
        """Whether `data` lists some of the values only."""
        return self.sparse_crow_indices is not None

    def values(self) -> list[float]:
        """The (listed) values as Python numbers."""
        return unpack(CODES[self.dtype], self.data)


def pack_at(at: Steps, code: Code, values: Sequence[float]) -> bytes:
    """Pack the array that stands at `at`.

    Raises:
        InvalidRequest: a value does not fit; says which.
    """
    packed = pack(code, values)
    if packed is None:
        index = first_misfit(code, values)
        shown = f"{values[index]!r:.{_SHOWN}}"
        raise refuse((*at, index), f"is {shown}; it must be {_HOLDS[code]}.")
    return packed


def chunk_of(form: ChunkForm, at: Steps) -> Chunk | None:
    """The chunk, checked; None for an image that lies elsewhere, which has no packed form."""
    _check_fields(form, at)
    if form.tokens is not UNSET:
        return TextChunk(pack_at((*at, "tokens"), "i", form.tokens))
    if form.dmel is not UNSET:
        return DmelChunk(form.dmel)
    if form.data is not UNSET and form.format is not UNSET:
        expected = form.expected_tokens
        return ImageChunk(form.data, form.format, None if expected is UNSET else expected)
    return None


def _check_fields(form: ChunkForm, at: Steps) -> None:
    required, optional = CHUNK_FIELDS[form.type]
    present = {
        name
        for name in ChunkForm.__struct_fields__
        if name != "type" and getattr(form, name) is not UNSET
    }
    if lacking := required - present:
        raise refuse(at, f"is a chunk of type {form.type} and lacks `{min(lacking)}`.")
    if foreign := present - required - optional:
        raise refuse(at, f"is a chunk of type {form.type}, which has no field `{min(foreign)}`.")


def tensor_of(name: str, form: TensorData, at: Steps) -> Tensor:
    """The tensor called `name`, checked."""
    if form.dtype != _DTYPES.get(name, form.dtype):
        raise refuse((*at, "dtype"), f"is {form.dtype}; it must be {_DTYPES[name]}.")
    data = pack_at((*at, "data"), CODES[form.dtype], form.data)
    plain = (len(form.data),)
    shape = plain if form.shape is None else tuple(form.shape)
    sparse = form.sparse_crow_indices is not None or form.sparse_col_indices is not None
    if shape == plain and not sparse:  # most are
        return Tensor(data, form.dtype, shape)
    pack_at((*at, "shape"), "q", shape)
    if any(size < 0 for size in shape):
        raise refuse((*at, "shape"), f"is {list(shape)!s:.{_SHOWN}}; no size may be negative.")
    if sparse:
        return _sparse(form, data, shape, at)
    if math.prod(shape) != len(form.data):
        raise refuse(
            (*at, "shape"),
            f"is {list(shape)!s:.{_SHOWN}}, which is not the shape of {len(form.data)} values.",
        )
    return Tensor(data, form.dtype, shape)


def _sparse(form: TensorData, data: bytes, shape: tuple[int, ...], at: Steps) -> Tensor:
    crow, cols = form.sparse_crow_indices, form.sparse_col_indices
    if crow is None or cols is None:
        raise refuse(
            at, "has one of sparse_crow_indices and sparse_col_indices; a sparse one has both."
        )
    if form.shape is None or len(shape) != 2:
        raise refuse(at, "is sparse, so it needs a shape of two sizes: rows and columns.")
    if fault := _csr_fault(crow, cols, len(form.data), shape):
        raise refuse(at, f"is not sound CSR: {fault}.")
    return Tensor(
        data,
        form.dtype,
        shape,
        pack_at((*at, "sparse_crow_indices"), "q", crow),
        pack_at((*at, "sparse_col_indices"), "q", cols),
    )


def _csr_fault(crow: list[int], cols: list[int], values: int, shape: Sequence[int]) -> str | None:
    """What makes the indices contradict the shape, if anything does."""
    rows, columns = shape
    if len(crow) != rows + 1:
        return f"{rows} rows need {rows + 1} sparse_crow_indices, and there are {len(crow)}"
    if len(cols) != values:
        return f"{values} values need as many sparse_col_indices, and there are {len(cols)}"
    if crow[0] != 0 or crow[-1] != values or crow != sorted(crow):
        return f"sparse_crow_indices must rise from 0 to the number of values, {values}"
    if cols and not 0 <= min(cols) <= max(cols) < columns:
        return f"sparse_col_indices must lie between 0 and {columns - 1}"
    return None
