import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.wire.packing import first_misfit, pack, unpack, unpack_bfloat16

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT32 = st.floats(width=32)


@given(st.lists(INT32))
def test_int32_is_what_numpy_writes(values: list[int]) -> None:
    packed = pack("i", values)
    assert packed == np.asarray(values, dtype="<i4").tobytes()
    assert unpack("i", packed) == values


@given(st.lists(INT64))
def test_int64_is_what_numpy_writes(values: list[int]) -> None:
    packed = pack("q", values)
    assert packed == np.asarray(values, dtype="<i8").tobytes()
    assert unpack("q", packed) == values


@given(st.lists(FLOAT32))
def test_float32_comes_back_as_the_double_that_equals_it(values: list[float]) -> None:
    packed = pack("f", values)
    assert packed is not None
    assert np.array_equal(unpack("f", packed), values, equal_nan=True)


@given(st.lists(st.floats(-3e38, 3e38)))
def test_a_double_is_rounded_as_numpy_rounds_it(values: list[float]) -> None:
    assert pack("f", values) == np.asarray(values, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("code", "misfit"),
    [
        ("i", 2**31),
        ("i", -(2**31) - 1),
        ("i", 1.0),
        ("q", 2**63),
        ("q", 0.5),
        ("f", 1e39),
        ("f", 10**400),
    ],
)
def test_a_value_that_does_not_fit_is_found(code: str, misfit: float) -> None:
    values = [0, 1, misfit, 2, misfit]
    assert pack(code, values) is None
    assert first_misfit(code, values) == 2


def test_half_a_value_is_refused() -> None:
    with pytest.raises(struct.error):
        unpack("i", b"\x00" * 6)


@given(st.lists(st.integers(0, 0xFFFF)))
def test_bfloat16_is_the_upper_half_of_a_float32(halves: list[int]) -> None:
    data = np.asarray(halves, dtype="<u2").tobytes()
    expected = (np.asarray(halves, dtype=np.uint32) << 16).view(np.float32)
    assert np.array_equal(unpack_bfloat16(data), expected.tolist(), equal_nan=True)
