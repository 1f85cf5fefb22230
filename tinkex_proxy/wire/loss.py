"""A caller's own loss, from its own outputs.

Of a shared request's metrics nothing is one caller's own. What is: the sum of the upstream's
`elementwise_loss` over its datums, and for `cross_entropy` -sum(weight * logprob), which every
upstream lets us compute.
"""

from collections.abc import Iterable, Sequence
from operator import mul

from tinkex_proxy.wire.datum import Datum
from tinkex_proxy.wire.output import Output, Record

__all__ = ["own_loss"]


def own_loss(loss_fn: str, datums: Sequence[Datum], output: Output) -> float | None:
    """The loss of `datums`, as a sum over tokens; None where the outputs do not tell it."""
    pairs = list(zip(datums, output.records, strict=True))
    losses = [_of(loss_fn, datum, record) for datum, record in pairs]
    known = [loss for loss in losses if loss is not None]
    return sum(known) if len(known) == len(losses) else None


def _of(loss_fn: str, datum: Datum, record: Record) -> float | None:
    if loss_fn == "cross_entropy" and "logprobs" in record:
        logprobs = record["logprobs"].data
        weights = _weights(datum, len(logprobs))
        if weights is not None and len(weights) == len(logprobs):
            products: Iterable[float] = map(mul, weights, logprobs)
            return -sum(products)
    return sum(record["elementwise_loss"].data) if "elementwise_loss" in record else None


def _weights(datum: Datum, count: int) -> list[float] | None:
    return datum.weights if "weights" in datum.tensors else [1.0] * count
