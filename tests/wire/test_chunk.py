from types import SimpleNamespace

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tinker import types
from tinker.lib.public_interfaces import training_client

from tinkex_proxy.wire.chunk import chunk, estimate_bytes
from tinkex_proxy.wire.datum import Datum, parse_datums

SIZES = st.lists(st.integers(1, 40), max_size=30)


def text_datum(tokens: int) -> dict[str, object]:
    return {
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": [7] * tokens}]},
        "loss_fn_inputs": {"weights": {"data": [1.0] * tokens, "dtype": "float32"}},
    }


def parsed(*datums: dict[str, object]) -> tuple[Datum, ...]:
    return parse_datums([msgspec.Raw(msgspec.json.encode(datum)) for datum in datums])


def for_sdk(datum: dict[str, object]) -> types.Datum:
    tensors = {name: types.TensorData(**t) for name, t in datum["loss_fn_inputs"].items()}
    return types.Datum(types.ModelInput.model_validate(datum["model_input"]), tensors)


# Limits that a piece can reach exactly: a token of these datums is 8 bytes.
@given(SIZES, st.integers(1, 8), st.integers(0, 50).map(lambda tokens: 8 * tokens))
def test_pieces_are_the_sdks(sizes: list[int], max_datums: int, max_bytes: int) -> None:
    """Same datums, same limits, same cuts."""
    bodies = [text_datum(size) for size in sizes]
    config = SimpleNamespace(
        fwdbwd_max_chunk_bytes_count=max_bytes, fwdbwd_max_chunk_len=max_datums
    )
    client = SimpleNamespace(holder=SimpleNamespace(_client_config=config))
    theirs = training_client.TrainingClient._chunked_requests_generator(
        client, [for_sdk(body) for body in bodies]
    )
    ours = chunk(parsed(*bodies) if bodies else (), max_datums=max_datums, max_bytes=max_bytes)
    assert [len(piece) for piece in ours] == [len(piece.data) for piece in theirs]
    assert [datum.tokens for piece in ours for datum in piece] == sizes


def test_a_datum_that_is_too_large_goes_alone() -> None:
    small, large = parsed(text_datum(1), text_datum(1000))
    assert chunk([small, large, small], max_datums=9, max_bytes=100) == [
        (small,),
        (large,),
        (small,),
    ]


def test_bytes_are_counted_as_the_sdk_counts() -> None:
    """4 per token, the numbers of tensors, their indices, the file of an image, the dmel bytes."""
    datum = {
        "model_input": {
            "chunks": [
                {"tokens": [1, 2, 3]},
                {"type": "image", "data": "QUJDRA==", "format": "png", "expected_tokens": 9},
                {"type": "dmel", "dmel": "AAEC"},
            ]
        },
        "loss_fn_inputs": {
            "target_tokens": {"data": [1, 2, 3], "dtype": "int64", "shape": [3]},
            "weights": {
                "data": [1.0, 2.0],
                "dtype": "float32",
                "shape": [3, 4],
                "sparse_crow_indices": [0, 1, 1, 2],
                "sparse_col_indices": [3, 0],
            },
        },
    }
    (ours,) = parsed(datum)
    assert estimate_bytes(ours) == 12 + 4 + 3 + 24 + 8 + 4 * 8 + 2 * 8
    assert estimate_bytes(ours) == training_client._estimate_datum_bytes_count_proto(for_sdk(datum))


def test_a_piece_may_reach_its_limit() -> None:
    datum = parsed(text_datum(2))[0]
    assert [len(piece) for piece in chunk([datum] * 4, max_datums=9, max_bytes=32)] == [2, 2]
