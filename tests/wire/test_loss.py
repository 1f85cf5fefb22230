import struct

import msgspec
import pytest

from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.datum import parse_datums
from tinkex_proxy.wire.loss import own_loss, own_loss_of
from tinkex_proxy.wire.output import Output, TensorOut


def datums(*bodies: object) -> tuple[object, ...]:
    return parse_datums([msgspec.Raw(msgspec.json.encode(body)) for body in bodies])


def output(*records: dict[str, list[float]]) -> Output:
    tensors = ({n: TensorOut(v, "float32", [len(v)]) for n, v in r.items()} for r in records)
    return Output("scalar", tuple(tensors), {})


SHORT = {"tokens": [1, 2], "targets": [2, 3], "weights": [0.5, 2.0]}
SPARSE = {
    "model_input": {"chunks": [{"tokens": [1, 2]}]},
    "loss_fn_inputs": {
        "weights": {
            "data": [1.0],
            "dtype": "float32",
            "shape": [2, 3],
            "sparse_crow_indices": [0, 1, 1],
            "sparse_col_indices": [0],
        }
    },
}
BARE = {
    "model_input": {"chunks": [{"tokens": [1, 2]}]},
    "loss_fn_inputs": {"target_tokens": {"data": [2, 3], "dtype": "int64"}},
}


def test_cross_entropy_is_minus_the_weighted_sum_of_logprobs() -> None:
    """Over all datums; `elementwise_loss`, which some upstreams average, is not looked at."""
    out = output({"logprobs": [-1.0, -2.0], "elementwise_loss": [9.0]}, {"logprobs": [-3.0, -4.0]})
    assert own_loss("cross_entropy", datums(SHORT, SHORT), out) == 4.5 + 9.5


def test_weights_that_were_left_out_are_ones() -> None:
    assert own_loss("cross_entropy", datums(BARE), output({"logprobs": [-1.0, -2.0]})) == 3.0


@pytest.mark.parametrize(
    ("datum", "logprobs"), [(SPARSE, [-1.0, -2.0]), (SHORT, [-1.0])], ids=["sparse", "other length"]
)
def test_without_matching_weights_the_upstreams_own_loss_counts(
    datum: object, logprobs: list[float]
) -> None:
    record = {"logprobs": logprobs}
    assert own_loss("cross_entropy", datums(datum), output(record)) is None
    assert (
        own_loss("cross_entropy", datums(datum), output({**record, "elementwise_loss": [7.0]})) == 7
    )


def test_other_losses_are_the_sum_of_elementwise_loss() -> None:
    out = output({"elementwise_loss": [1.0, 2.0]}, {"elementwise_loss": [4.0], "logprobs": [0.0]})
    assert own_loss("ppo", datums(SHORT, SHORT), out) == 7.0


def test_a_loss_that_is_not_told_is_none() -> None:
    """One datum without is enough: part of a sum is not the sum."""
    out = output({"elementwise_loss": [1.0]}, {"logprobs": [-1.0, -1.0]})
    assert own_loss("ppo", datums(SHORT, SHORT), out) is None


def packed(*weights: list[float]) -> bytes:
    """Datums as an SDK sends them, of which the loss reads the weights alone."""
    request = pb.ForwardBackwardRequest()
    for values in weights:
        tensor = request.data.add().loss_fn_inputs["weights"]
        tensor.dense = struct.pack(f"<{len(values)}f", *values)
    return request.SerializeToString()


def scored(*logprobs: list[float], name: str = "logprobs") -> Output:
    return Output("x", tuple({name: TensorOut(values)} for values in logprobs), {})


@pytest.mark.parametrize(
    ("loss_fn", "data", "output", "loss"),
    [
        ("cross_entropy", packed([1.0, 0.5], [2.0]), scored([-1.0, -2.0], [-3.0]), 8.0),
        ("ppo", b"", scored([1.0, 2.0], [3.0], name="elementwise_loss"), 6.0),
        ("ppo", packed([1.0]), scored([-1.0]), None),
        ("cross_entropy", packed([1.0]), scored([-1.0], [-1.0]), None),
        ("cross_entropy", packed([1.0]), scored([-1.0, -1.0]), None),
        ("cross_entropy", packed([1.0]), scored([0.5], name="other"), None),
        ("cross_entropy", packed([1.0], []), scored([-1.0], [-1.0]), None),
    ],
)
def test_the_loss_of_packed_datums_is_computed_or_not_told(loss_fn, data, output, loss) -> None:
    """From `elementwise_loss` where there is one, else -sum(weight * logprob); never a part."""
    assert own_loss_of(loss_fn, data, output) == loss
