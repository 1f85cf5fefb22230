"""The answers to the pieces of one large call, put together as the SDK does.

A metric's name says how: what follows its colon. `mean` and `slack` (how far the largest is above
the mean) weigh each piece by its outputs; `unique` cannot be combined and keeps every value under a
numbered name; a metric that some piece lacks, or whose reduction nobody knows, is dropped.

Two differences to the SDK: what it raises on (a name without a reduction, a `hash2` that is no
finite number, no outputs to weigh by) is no reason to lose an answer here; and sums are correctly
rounded (`math.fsum`), where numpy's are rounded at every step.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final

from tinkex_proxy.wire.output import Output

__all__ = ["reduce"]

_U64: Final = 0xFFFF_FFFF_FFFF_FFFF


def reduce(outputs: Sequence[Output]) -> Output:
    """One answer of the answers to each piece, in order."""
    if len(outputs) == 1:
        return outputs[0]
    if not outputs:
        return Output("", (), {})
    records = tuple(record for output in outputs for record in output.records)
    return Output(outputs[0].loss_fn_output_type, records, _metrics(outputs))


def _metrics(outputs: Sequence[Output]) -> dict[str, float]:
    weights = [len(output.records) for output in outputs]
    combined: dict[str, float] = {}
    for name in outputs[0].metrics:
        reduction = name.partition(":")[2]
        if not all(name in output.metrics for output in outputs):
            continue
        values = [output.metrics[name] for output in outputs]
        if reduction == "unique":
            combined[name] = values[0]
            combined |= {f"{name}_{index}": value for index, value in enumerate(values[1:], 1)}
        elif reduction in _REDUCTIONS:
            combined[name] = _REDUCTIONS[reduction](values, weights)
    return combined


def _sum(values: Sequence[float], _weights: Sequence[int]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else sum(values)


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    if not any(weights):
        weights = [1] * len(values)
    parts = [value * weight for value, weight in zip(values, weights, strict=True)]
    return _sum(parts, weights) / sum(weights)


def _max(values: Sequence[float], _weights: Sequence[int]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values)


def _min(values: Sequence[float], _weights: Sequence[int]) -> float:
    return math.nan if any(map(math.isnan, values)) else min(values)


def _slack(values: Sequence[float], weights: Sequence[int]) -> float:
    return _max(values, weights) - _mean(values, weights)


def _hash2(values: Sequence[float], _weights: Sequence[int]) -> float:
    """A sum that does not depend on the order, modulo 2**64."""
    if not all(map(math.isfinite, values)):
        return math.nan
    return sum(int(value) & _U64 for value in values) & _U64


_REDUCTIONS: Final[dict[str, Callable[[Sequence[float], Sequence[int]], float]]] = {
    "mean": _mean,
    "sum": _sum,
    "min": _min,
    "max": _max,
    "slack": _slack,
    "hash2": _hash2,
}
