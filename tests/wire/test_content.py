import msgspec
import pytest

from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.wire.content import (
    DmelChunk,
    ImageChunk,
    Tensor,
    TextChunk,
    chunk_of,
    pack_at,
    tensor_of,
)
from tinkex_proxy.wire.forms import ChunkForm, TensorData

SPARSE = {
    "data": [1.0, 2.0],
    "dtype": "float32",
    "shape": [2, 3],
    "sparse_crow_indices": [0, 1, 2],
    "sparse_col_indices": [2, 0],
}


def chunk(**fields: object) -> object:
    return chunk_of(msgspec.convert(fields, ChunkForm), ("c",))


def tensor(name: str = "any", **fields: object) -> Tensor:
    return tensor_of(name, msgspec.convert(fields, TensorData), ("t",))


def test_each_kind_of_chunk() -> None:
    """`type` may be left out of text; an image elsewhere has no packed form."""
    assert chunk(tokens=[1]) == chunk(type="encoded_text", tokens=[1]) == TextChunk(b"\1\0\0\0")
    assert chunk(type="image", data="QUJD", format="png") == ImageChunk(b"ABC", "png")
    assert chunk(type="image", data="QUJD", format="jpeg", expected_tokens=9) == ImageChunk(
        b"ABC", "jpeg", 9
    )
    assert chunk(type="image", data="", format="png", expected_tokens=None) == ImageChunk(
        b"", "png"
    )
    assert chunk(type="dmel", dmel="QUJD") == DmelChunk(b"ABC")
    assert chunk(type="image_asset_pointer", location="x", format="png") is None
    assert TextChunk(b"\1\0\0\0\2\0\0\0").tokens == 2


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "`/c` is a chunk of type encoded_text and lacks `tokens`."),
        ({"type": "image", "data": ""}, "`/c` is a chunk of type image and lacks `format`."),
        (
            {"type": "dmel", "dmel": "", "tokens": []},
            "`/c` is a chunk of type dmel, which has no field `tokens`.",
        ),
    ],
)
def test_the_fields_of_a_chunk_belong_to_its_type(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chunk(**fields)
    assert caught.value.detail == sentence


def test_a_value_that_does_not_fit_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        pack_at(("data", 1, "tokens"), "i", [1, 2**31])
    assert caught.value.pointer == "/data/1/tokens/1"
    assert "is 2147483648; it must be an int32" in caught.value.detail


def test_a_long_value_is_not_repeated_in_full() -> None:
    with pytest.raises(InvalidRequest) as caught:
        pack_at((), "i", [10**300])
    assert len(caught.value.detail) < 120


def test_dense_tensors() -> None:
    """A shape that was left out is one dimension."""
    row = tensor(data=[1, 2], dtype="float32")
    assert (row.shape, row.values(), row.is_sparse) == ((2,), [1.0, 2.0], False)
    assert tensor(data=[1, 2], dtype="int64", shape=[2, 1]).shape == (2, 1)
    assert tensor(data=[], dtype="int64", shape=[0, 5]).values() == []
    assert tensor(data=[5], dtype="int64", shape=[]).shape == ()


def test_sparse_tensors() -> None:
    made = tensor(**SPARSE)
    assert made.is_sparse
    assert made.values() == [1.0, 2.0]
    assert made.sparse_crow_indices == b"".join(i.to_bytes(8, "little") for i in (0, 1, 2))
    assert made.sparse_col_indices == b"".join(i.to_bytes(8, "little") for i in (2, 0))
    empty = {"data": [], "shape": [0, 3], "sparse_crow_indices": [0], "sparse_col_indices": []}
    assert tensor(**{**SPARSE, **empty}).is_sparse


@pytest.mark.parametrize(
    ("changes", "where", "reason"),
    [
        ({"shape": [3]}, "/shape", "not the shape of 2 values"),
        ({"shape": [-1, -2]}, "/shape", "negative"),
        ({"shape": [2**70]}, "/shape/0", "int64"),
        ({"shape": [1] * 99 + [3]}, "/shape", "not the shape of 2 values"),
        ({"dtype": "int64", "data": [1, 0.5]}, "/data/1", "0.5; it must be an int64"),
        ({"data": [1e39, 1]}, "/data/0", "float32"),
    ],
)
def test_unsound_dense_tensors(changes: dict[str, object], where: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        tensor(**{"data": [1.0, 2.0], "dtype": "float32", **changes})
    assert caught.value.pointer == "/t" + where


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sparse_col_indices": None}, "a sparse one has both"),
        ({"sparse_crow_indices": None}, "a sparse one has both"),
        ({"shape": None}, "rows and columns"),
        ({"shape": [6]}, "rows and columns"),
        ({"sparse_crow_indices": [0, 2]}, "2 rows need 3"),
        ({"sparse_col_indices": [0]}, "2 values need as many"),
        ({"sparse_crow_indices": [1, 1, 2]}, "rise from 0"),
        ({"sparse_crow_indices": [0, 1, 1]}, "rise from 0"),
        ({"sparse_crow_indices": [0, 3, 2]}, "rise from 0"),
        ({"sparse_col_indices": [0, 3]}, "between 0 and 2"),
        ({"sparse_col_indices": [-1, 0]}, "between 0 and 2"),
    ],
)
def test_unsound_sparse_tensors(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        tensor(**{**SPARSE, **changes})


@pytest.mark.parametrize(("name", "dtype"), [("target_tokens", "float32"), ("weights", "int64")])
def test_the_tensors_every_loss_knows_have_their_dtype(name: str, dtype: str) -> None:
    with pytest.raises(InvalidRequest, match=f"is {dtype}; it must be") as caught:
        tensor(name, data=[1], dtype=dtype)
    assert caught.value.pointer == "/t/dtype"
