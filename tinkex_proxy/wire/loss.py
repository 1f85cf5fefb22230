"""A caller's own loss, from its own outputs.

Of a shared request's metrics nothing is one caller's own. What is: the sum of the upstream's
`elementwise_loss` over its datums, and for `cross_entropy` -sum(weight * logprob), which every
upstream lets us compute.
"""

from collections.abc import Iterable, Sequence
from operator import mul

from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.datum import Datum
from tinkex_proxy.wire.output import Output, Record
from tinkex_proxy.wire.packing import unpack

__all__ = ["own_loss", "own_loss_of"]


def own_loss(loss_fn: str, datums: Sequence[Datum], output: Output) -> float | None:
    """The loss of `datums`, as a sum over tokens; None where the outputs do not tell it."""
    pairs = list(zip(datums, output.records, strict=True))
    losses = [_of(loss_fn, datum, record) for datum, record in pairs]
    known = [loss for loss in losses if loss is not None]
    return sum(known) if len(known) == len(losses) else None


def own_loss_of(loss_fn: str, data: bytes, output: Output) -> float | None:
    """The loss of datums that are at hand only as the protobuf they are sent in, or not at all.

    Args:
        loss_fn: the loss.
        data: their bytes; opened only where the outputs alone do not tell the loss.
        output: the answer for them.
    """
    records = output.records
    if all("elementwise_loss" in record for record in records):
        return sum(sum(record["elementwise_loss"].values()) for record in records)
    datums = pb.ForwardBackwardRequest.FromString(data).data if loss_fn == "cross_entropy" else ()
    if len(datums) != len(records):
        return None
    losses = [_of_packed(datum, record) for datum, record in zip(datums, records, strict=True)]
    known = [loss for loss in losses if loss is not None]
    return sum(known) if len(known) == len(losses) else None


def _of_packed(datum: pb.Datum, record: Record) -> float | None:
    logprobs = record["logprobs"].values() if "logprobs" in record else []
    weights = unpack("f", datum.loss_fn_inputs["weights"].dense)
    if not logprobs or len(weights) != len(logprobs):
        return None
    products: Iterable[float] = map(mul, weights, logprobs)
    return -sum(products)


def _of(loss_fn: str, datum: Datum, record: Record) -> float | None:
    if loss_fn == "cross_entropy" and "logprobs" in record:
        logprobs = record["logprobs"].values()
        weights = _weights(datum, len(logprobs))
        if weights is not None and len(weights) == len(logprobs):
            products: Iterable[float] = map(mul, weights, logprobs)
            return -sum(products)
    return sum(record["elementwise_loss"].values()) if "elementwise_loss" in record else None


def _weights(datum: Datum, count: int) -> list[float] | None:
    return datum.weights if "weights" in datum.tensors else [1.0] * count
