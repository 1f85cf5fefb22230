"""floats to little-endian bytes and back.

`struct` does the range check while it packs, in C: a token that is no int32, a weight beyond
float32 and a fraction where an integer belongs all fail the whole call, and only then does a loop
look for the culprit. The numbers are the call's only arguments, which spares a copy of them: a
format beside them would have to be put in front. `struct` with an explicit `<` is as fast as
`array` here and right on every machine; numpy would be faster still, but costs 30 MB of memory that
an idle sidecar must not.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, Literal

__all__ = ["SIZES", "Code", "first_misfit", "pack", "unpack", "unpack_bfloat16", "unpack_integers"]

Code = Literal["i", "q", "f"]
SIZES: Final[dict[Code, int]] = {"i": 4, "q": 8, "f": 4}

# What struct says to a number it cannot hold: wrong kind or integer range; float range.
_MISFIT: Final = (struct.error, OverflowError)


def pack(code: Code, values: Sequence[float]) -> bytes | None:
    """The values as int32 (`i`), int64 (`q`) or float32 (`f`); None when one does not fit."""
    try:
        return _form(len(values), code).pack(*values)
    except _MISFIT:
        return None


@lru_cache(maxsize=1024)  # calls of a trainer are of a few lengths; to read a form takes as long
def _form(count: int, code: Code) -> struct.Struct:
    return struct.Struct(f"<{count}{code}")


def first_misfit(code: Code, values: Sequence[float]) -> int:
    """Index of the first value that made `pack` give None."""
    return next(index for index, value in enumerate(values) if pack(code, [value]) is None)


def unpack(code: Code, data: bytes) -> list[float]:
    """The numbers in `data`, a float32 as the double that equals it.

    Raises:
        struct.error: `data` is no whole number of values.
    """
    return list(_form(len(data) // SIZES[code], code).unpack(data))


def unpack_integers(data: bytes) -> list[int]:
    """The int32 in `data`.

    Raises:
        struct.error: `data` is no whole number of values.
    """
    return list(_form(len(data) // 4, "i").unpack(data))


def unpack_bfloat16(data: bytes) -> list[float]:
    """The numbers in `data`, exactly: a bfloat16 is the upper half of a float32."""
    wide = bytearray(len(data) * 2)
    wide[2::4] = data[0::2]
    wide[3::4] = data[1::2]
    return unpack("f", bytes(wide))
