"""Cutting large calls and putting their answers together: the rows CH and RD of docs/parity.md."""

import msgspec
import pytest

from tinkex_proxy.config.sections import BatchingSettings
from tinkex_proxy.runtime import trainer
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.wire import plain
from tinkex_proxy.wire.chunk import chunk
from tinkex_proxy.wire.content import ImageChunk, TextChunk
from tinkex_proxy.wire.datum import Datum
from tinkex_proxy.wire.output import Output, TensorOut
from tinkex_proxy.wire.reduce import reduce

DEFAULTS = BatchingSettings()


def image(size: int) -> Datum:
    return Datum((ImageChunk(data=b"x" * size, format="png", expected_tokens=1),), {})


def text(tokens: int) -> Datum:
    return Datum((TextChunk(packed=b"\1\0\0\0" * tokens),), {})


@pytest.mark.parametrize(
    ("datum", "count", "pieces"),
    [
        (text(1), 1025, [1024, 1]),
        (image(100_000), 51, [50, 1]),
        (image(600_000), 9, [8, 1]),
        (text(25_000), 51, [50, 1]),
        (text(10_000), 51, [51]),
    ],
)
def test_pieces_keep_to_the_limits(datum: Datum, count: int, pieces: list[int]) -> None:
    """CH-01: 1,024 datums, 5,000,000 bytes; an image is its length, a token 4 bytes (not 10)."""
    limits = {"max_datums": DEFAULTS.max_datums, "max_bytes": DEFAULTS.max_bytes}
    assert [len(piece) for piece in chunk([datum] * count, **limits)] == pieces


async def test_a_models_requests_are_numbered_from_one_in_the_order_they_came(
    account, service
) -> None:
    """CH-02: two pieces, a step, a save are 1, 2, 3 and 4."""
    data = [{"tokens": [1], "targets": [1]}] * 1025
    body = msgspec.json.encode({"model_id": "m", "data": data})
    await trainer.train(account, plain.decode_training(body), Ticket())
    await trainer.optim_step(account, plain.OptimStep(model_id="m"), Ticket())
    save = plain.SaveWeights(model_id="m", path="p")
    await trainer.save_weights(account, save, Ticket(), for_sampler=False)
    assert [(name, sent["seq_id"]) for name, sent in service.submits] == [
        ("forward_backward", 1),
        ("forward_backward", 2),
        ("optim_step", 3),
        ("save_weights", 4),
    ]


def piece(outputs: int, metrics: dict[str, float], kind: str = "tensor") -> Output:
    record = {"x": TensorOut([1.0], "float32", [1])}
    return Output(kind, (record,) * outputs, metrics)


def combined(*pieces: tuple[int, dict[str, float]]) -> dict[str, float]:
    return dict(reduce([piece(outputs, metrics) for outputs, metrics in pieces]).metrics)


def test_metrics_are_combined_by_the_reduction_in_their_name() -> None:
    """RD-01: means and slacks weigh each piece by its outputs; `unique` keeps every value."""
    one = {
        "l:mean": 1.0,
        "n:sum": 100.0,
        "t:max": 1.1,
        "c:min": 0.3,
        "d:slack": 1.0,
        "u:unique": 7.0,
    }
    two = {
        "l:mean": 3.0,
        "n:sum": 50.0,
        "t:max": 1.5,
        "c:min": 0.1,
        "d:slack": 3.0,
        "u:unique": 8.0,
    }
    six = {
        "l:mean": 5.0,
        "n:sum": 75.0,
        "t:max": 1.2,
        "c:min": 0.2,
        "d:slack": 5.0,
        "u:unique": 9.0,
    }
    assert combined((1, one), (3, two), (2, six)) == pytest.approx(
        {
            "l:mean": 20 / 6,
            "n:sum": 225,
            "t:max": 1.5,
            "c:min": 0.1,
            "d:slack": 5 - 20 / 6,
            "u:unique": 7,
            "u:unique_1": 8,
            "u:unique_2": 9,
        }
    )


def test_a_hash_does_not_depend_on_the_order() -> None:
    """RD-01: and stays within 64 bits."""
    hashes = [(1, {"h:hash2": float(2**63)}), (1, {"h:hash2": float(2**63)}), (1, {"h:hash2": 5.0})]
    assert combined(*hashes) == combined(*reversed(hashes)) == {"h:hash2": 5}


def test_only_what_every_piece_has_is_combined() -> None:
    """RD-02: no zeros are filled in, nothing is guessed at; no weights are equal weights."""
    first = {"a:mean": 0.8, "b:mean": 1.0, "e:median": 1.0}
    later = {"b:mean": 3.0, "e:median": 3.0, "f:sum": 42.0}
    assert combined((2, first), (4, later)) == pytest.approx({"b:mean": 7 / 3})
    assert combined((0, {"b:mean": 5.0}), (0, {"b:mean": 15.0})) == {"b:mean": 10}


def test_of_two_types_of_outputs_the_first_is_told() -> None:
    """RD-03: and no output is lost."""
    both = reduce([piece(1, {}, "per-example"), piece(2, {}, "per-token")])
    assert (both.loss_fn_output_type, len(both.records)) == ("per-example", 3)
