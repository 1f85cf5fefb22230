import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinker.lib.chunked_fwdbwd_helpers import REDUCE_MAP, combine_fwd_bwd_output_results
from tinker.types import ForwardBackwardOutput, TensorData

from tinkex_proxy.wire.output import Output, TensorOut
from tinkex_proxy.wire.reduce import reduce

# Reductions of the SDK, and one it does not know.
REDUCTIONS = [*REDUCE_MAP, "median"]


def output(records: int, metrics: dict[str, float], start: int = 0) -> Output:
    made = ({"x": TensorOut([float(start + i)], "float32", [1])} for i in range(records))
    return Output("scalar", tuple(made), metrics)


def for_sdk(answer: Output) -> ForwardBackwardOutput:
    records = [
        {name: TensorData(data=t.data, dtype=t.dtype, shape=t.shape) for name, t in r.items()}
        for r in answer.records
    ]
    return ForwardBackwardOutput(answer.loss_fn_output_type, records, answer.metrics)


@st.composite
def answers(draw: st.DrawFn) -> list[Output]:
    names = [f"m{i}:{reduction}" for i, reduction in enumerate(REDUCTIONS)]
    value = st.one_of(st.floats(-1e6, 1e6), st.integers(-(2**70), 2**70).map(float))
    metrics = st.fixed_dictionaries({}, optional=dict.fromkeys(names, value))
    full = st.fixed_dictionaries(dict.fromkeys(names, value))
    counts = draw(st.lists(st.integers(1, 4), min_size=2, max_size=12))
    return [output(n, draw(st.one_of(full, metrics)), 10 * i) for i, n in enumerate(counts)]


@given(answers())
def test_it_is_the_sdks(pieces: list[Output]) -> None:
    """Same pieces, same metrics in the same order, same outputs; sums to the last digits."""
    ours, theirs = reduce(pieces), combine_fwd_bwd_output_results([for_sdk(p) for p in pieces])
    assert ours.loss_fn_output_type == theirs.loss_fn_output_type
    assert [r["x"].data for r in ours.records] == [r["x"].data for r in theirs.loss_fn_outputs]
    assert list(ours.metrics) == list(theirs.metrics)
    size = max([1.0, *(abs(v) for p in pieces for v in p.metrics.values())])
    for name, value in theirs.metrics.items():
        if name.partition(":")[2] in {"mean", "sum", "slack"}:
            assert ours.metrics[name] == pytest.approx(value, rel=1e-12, abs=size * 1e-12)
        else:
            assert ours.metrics[name] == value


def test_one_answer_stays_as_it_is() -> None:
    one = output(2, {"odd": 1.0})
    assert reduce([one]) is one


def test_no_answer_is_an_empty_one() -> None:
    ours, theirs = reduce([]), combine_fwd_bwd_output_results([])
    assert (ours.loss_fn_output_type, ours.records, ours.metrics) == ("", (), {})
    assert theirs.loss_fn_outputs == []


def test_nan_is_not_hidden_by_an_extreme() -> None:
    """`max` and `min` of a NaN are a NaN, as numpy has it, wherever it stands."""
    for values in ((math.nan, 1.0), (1.0, math.nan)):
        names = ["a:max", "a:min", "a:sum", "a:mean", "a:slack", "a:hash2"]
        combined = reduce([output(1, dict.fromkeys(names, value)) for value in values])
        assert all(math.isnan(value) for value in combined.metrics.values())
        assert len(combined.metrics) == len(names)


def test_what_the_sdk_raises_on_loses_no_answer() -> None:
    """A name without a reduction is dropped; without outputs every piece weighs the same."""
    combined = reduce(
        [output(0, {"odd": 1.0, "a:mean": 1.0}), output(0, {"odd": 2.0, "a:mean": 3.0})]
    )
    assert combined.metrics == {"a:mean": 2.0}
