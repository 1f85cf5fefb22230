import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.wire.content import ImageChunk, TextChunk
from tinkex_proxy.wire.datum import Datum, parse_datums, parse_prompt

INT32 = st.integers(-(2**31), 2**31 - 1)
IMAGE = {"type": "image", "data": "QUJD", "format": "png", "expected_tokens": 5}


def parse(*bodies: object, **options: object) -> tuple[Datum, ...]:
    return parse_datums([msgspec.Raw(json.dumps(body).encode()) for body in bodies], **options)


def refusal(*bodies: object, **options: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(*bodies, **options)
    return caught.value


def long(chunks: list[object], **tensors: object) -> dict[str, object]:
    return {"model_input": {"chunks": chunks}, "loss_fn_inputs": tensors}


GOOD = {"tokens": [1, 2], "targets": [2, 3]}


@given(st.lists(INT32, min_size=1), st.data())
def test_the_short_form_means_text_targets_and_weights(
    tokens: list[int], data: st.DataObject
) -> None:
    size = {"min_size": len(tokens), "max_size": len(tokens)}
    targets = data.draw(st.lists(INT32, **size))
    weights = data.draw(st.lists(st.floats(0, 1, width=32), **size))
    (datum,) = parse({"tokens": tokens, "targets": targets, "weights": weights})
    assert datum.tokens == len(tokens)
    assert datum.weights == weights
    assert datum.tensors["target_tokens"].values() == targets
    assert datum.tensors["target_tokens"].dtype == "int64"
    read = json.loads(datum.json())
    assert read["model_input"]["chunks"][0]["tokens"] == tokens
    assert parse(read)[0].tensors == datum.tensors


@pytest.mark.parametrize("weights", [{}, {"weights": None}])
def test_weights_left_out_are_ones(weights: dict[str, object]) -> None:
    assert parse({**GOOD, **weights})[0].weights == [1.0, 1.0]


def test_tinkers_form_keeps_its_text() -> None:
    body = long([{"tokens": [1]}], target_tokens={"data": [2], "dtype": "int64"})
    (datum,) = parse(body)
    assert datum.json() == json.dumps(body).encode()
    assert datum.weights is None
    assert datum.chunks == (TextChunk(b"\1\0\0\0"),)


def test_tokens_are_counted_over_all_chunks() -> None:
    """An image counts what the caller expects, and nothing where it does not say."""
    silent = {k: v for k, v in IMAGE.items() if k != "expected_tokens"}
    dmel = {"type": "dmel", "dmel": "AA=="}
    (datum,) = parse(long([{"tokens": [1, 2]}, IMAGE, silent, dmel, {"tokens": []}]))
    assert datum.tokens == 7
    assert datum.chunks[1] == ImageChunk(b"ABC", "png", 5)


@pytest.mark.parametrize(
    ("bad", "pointer", "reason"),
    [
        ({**GOOD, "targets": [2]}, "/data/1/targets", "has length 1; there are 2 tokens"),
        ({**GOOD, "weights": [1]}, "/data/1/weights", "has length 1; there are 2 tokens"),
        ({**GOOD, "tokens": [1, 2**31]}, "/data/1/tokens/1", "int32"),
        ({**GOOD, "targets": [1, 2**63]}, "/data/1/targets/1", "int64"),
        ({**GOOD, "weights": [1, -1e39]}, "/data/1/weights/1", "float32"),
        ({**GOOD, "tokens": [1, 1.5]}, "/data/1/tokens/1", "is a number; it must be an integer"),
        ({**GOOD, "targets": "abc"}, "/data/1/targets", "is a string; it must be an array"),
        ({**GOOD, "weigths": [1, 1]}, "/data/1", "did you mean `weights`"),
        ({**GOOD, "weights": [1, None]}, "/data/1/weights/1", "is null; it must be a number"),
        ({"tokens": [1]}, "/data/1", "lacks `targets`"),
        ({"targets": [1]}, "/data/1", "lacks `tokens`"),
        ({}, "/data/1", "lacks `tokens`"),
        ({"tokens": [], "targets": []}, "/data/1", "has no tokens"),
        ({**GOOD, "model_input": {"chunks": []}}, "/data/1", "mixes `tokens`"),
        ({"model_input": {"chunks": []}}, "/data/1", "lacks `loss_fn_inputs`"),
        ({"loss_fn_inputs": {}}, "/data/1", "lacks `model_input`"),
        (long([]), "/data/1", "has no tokens"),
        (long([{"tokens": []}]), "/data/1", "has no tokens"),
        (long([{"tokens": [1.5]}]), "/data/1/model_input/chunks/0/tokens/0", "an integer"),
        (
            long([{"tokens": [2**31]}]),
            "/data/1/model_input/chunks/0/tokens/0",
            "is 2147483648; it must be an int32",
        ),
        (
            long([IMAGE, {"type": "image_asset_pointer", "location": "x", "format": "png"}]),
            "/data/1/model_input/chunks/1",
            "takes the image itself",
        ),
        (
            long([{"tokens": [1]}], **{"a/b": {"data": [None], "dtype": "int64"}}),
            "/data/1/loss_fn_inputs/a~1b/data/0",
            "is null",
        ),
        (7, "/data/1", "is an integer; it must be an object"),
    ],
)
def test_an_unsound_datum_is_named(bad: object, pointer: str, reason: str) -> None:
    error = refusal(GOOD, bad, GOOD)
    assert error.pointer == pointer
    assert reason in error.detail


def test_no_datums_are_refused() -> None:
    assert refusal().detail == "`/data` is empty; send at least one datum."


TWO = {"data": [1, 2], "dtype": "int64"}
UNEVEN = long([{"tokens": [1, 2, 3]}], target_tokens=TWO)


def test_cross_entropy_needs_a_target_and_a_weight_for_each_token() -> None:
    error = refusal(UNEVEN, at=("requests", 4, "data"))
    assert error.pointer == "/requests/4/data/0/loss_fn_inputs/target_tokens"
    weights = {"data": [1.0], "dtype": "float32"}
    assert refusal(long([{"tokens": [1, 2]}], target_tokens=TWO, weights=weights)).pointer == (
        "/data/0/loss_fn_inputs/weights"
    )


@pytest.mark.parametrize(
    "body",
    [
        long([{"tokens": [1, 2, 3]}, IMAGE], target_tokens=TWO),
        long([{"tokens": [1]}], target_tokens={**TWO, "shape": [1, 2]}),
        long(
            [{"tokens": [1]}],
            target_tokens={
                **TWO,
                "shape": [2, 2],
                "sparse_crow_indices": [0, 1, 2],
                "sparse_col_indices": [0, 1],
            },
        ),
        long([{"tokens": [1]}]),
    ],
    ids=["an image", "two dimensions", "sparse", "none"],
)
def test_what_only_the_upstream_can_judge_is_left_to_it(body: dict[str, object]) -> None:
    assert parse(body)


def test_other_losses_set_their_own_lengths() -> None:
    """But the short form is what it is under every loss."""
    assert parse(UNEVEN, loss_fn="ppo")
    assert refusal({**GOOD, "targets": [1]}, loss_fn="ppo").pointer == "/data/0/targets"


@given(st.lists(INT32))
def test_a_prompt_may_be_a_list_of_tokens(tokens: list[int]) -> None:
    prompt = parse_prompt(msgspec.Raw(json.dumps(tokens).encode()))
    assert prompt.tokens == len(tokens)
    assert json.loads(bytes(prompt.json)) == {
        "chunks": [{"type": "encoded_text", "tokens": tokens}]
    }


def test_a_prompt_may_be_a_model_input() -> None:
    """It goes through as it is, an image elsewhere included."""
    elsewhere = {"type": "image_asset_pointer", "location": "x", "format": "png"}
    text = json.dumps({"chunks": [{"tokens": [1, 2]}, IMAGE, elsewhere]}).encode()
    prompt = parse_prompt(msgspec.Raw(text))
    assert (prompt.tokens, bytes(prompt.json)) == (7, text)


@pytest.mark.parametrize(
    ("prompt", "pointer", "reason"),
    [
        ("hello", "/prompt", "array of token ids, or a ModelInput"),
        ([1, 2**31], "/prompt/1", "int32"),
        ([1, "a"], "/prompt/1", "is a string; it must be an integer"),
        ({"chunk": []}, "/prompt", "did you mean `chunks`"),
        ({"chunks": [{"type": "image"}]}, "/prompt/chunks/0", "lacks `data`"),
    ],
)
def test_an_unsound_prompt_is_named(prompt: object, pointer: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        parse_prompt(msgspec.Raw(json.dumps(prompt).encode()))
    assert caught.value.pointer == pointer
