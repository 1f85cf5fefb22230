"""What travels on a lane, and how a batch of it becomes one request and one answer each."""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from tinkex_proxy.core.coalesce import Item
from tinkex_proxy.core.lane import Batch
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import JSON, PROTOBUF, Ask, json_of
from tinkex_proxy.wire.datum import Flavour
from tinkex_proxy.wire.merge import Fragment, merge
from tinkex_proxy.wire.output import Output, decode_output
from tinkex_proxy.wire.split import split

__all__ = ["Call", "Order", "Share", "Timeline", "Training", "accept_of", "encode", "read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A `forward_backward` or `forward` of one caller.

    Attributes:
        fragment: its datums, encoded for the upstream.
        loss_fn: name of the loss.
        loss_fn_config: the loss's parameters.
        forward_only: whether no gradient is wanted; such a call is a barrier.
        coalesce: whether it may share a request.
    """

    fragment: Fragment
    loss_fn: str
    loss_fn_config: Mapping[str, float | str]
    forward_only: bool = False
    coalesce: bool = True

    @property
    def key(self) -> Hashable | None:
        """Calls with equal keys may share a request."""
        if self.forward_only or not self.coalesce:
            return None
        config = tuple(sorted(self.loss_fn_config.items()))
        return (self.fragment.flavour, self.loss_fn, config)


@dataclass(frozen=True, slots=True)
class Order:
    """A call that shares with nobody: `optim_step`, saving, loading, unloading."""

    path: str
    fields: Mapping[str, object]


@dataclass(slots=True)
class Timeline:
    """Where a call's time went, in seconds; None where it did not come to that."""

    queue_s: float = 0.0
    linger_s: float = 0.0
    upload_s: float = 0.0
    upstream_queue_s: float = 0.0
    compute_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """One training call's part of a batch's answer.

    Attributes:
        output: the outputs of its own datums; its metrics are the upstream's only if it was alone.
        batch_id: names the upstream request.
        requests: calls that shared it.
        datums: datums in it.
        index: this call's place among them, from 0.
        metrics: the upstream's metrics, over the whole request.
    """

    output: Output
    batch_id: str
    requests: int
    datums: int
    index: int
    metrics: Mapping[str, float]


@dataclass(eq=False, slots=True)
class Call:
    """One piece of work on a lane, and where its answer will be.

    Attributes:
        work: what is asked.
        item: how the lane sees it.
        since: when it came.
        answer: a `Share` for training, the upstream's JSON object for an order.
        left: whether it is on the wire or beyond.
    """

    work: Training | Order
    item: Item
    since: float
    answer: "asyncio.Future[Share | dict[str, object]]"
    left: bool = False
    timeline: Timeline = field(default_factory=Timeline)


def encode(
    model_id: str, batch: Batch, calls: Sequence[Call], *, flavour: Flavour, identity: str
) -> Ask:
    """Make the one request that carries `calls`.

    Training goes in the flavour that its fragments were written in. `flavour` is the upstream's:
    the JSON generation ignores `seq_id`, so only protobuf upstreams recognise a repetition.
    """
    repeatable = flavour is Flavour.PROTOBUF
    first = calls[0].work
    if isinstance(first, Order):
        fields = {**first.fields, "model_id": model_id, "seq_id": batch.seq_id}
        body = msgspec.json.encode(fields)
        return Ask(
            operation=Operation.SUBMIT,
            path=first.path,
            body=body,
            identity=identity,
            repeatable=repeatable,
        )
    submit = merge(
        [call.work.fragment for call in calls if isinstance(call.work, Training)],
        model_id=model_id,
        seq_id=batch.seq_id,
        loss_fn=first.loss_fn,
        loss_fn_config=first.loss_fn_config,
        forward_only=first.forward_only,
        flavour=first.fragment.flavour,
    )
    return Ask(
        operation=Operation.SUBMIT,
        path=submit.path,
        body=submit.body,
        content_type=submit.content_type,
        identity=identity,
        repeatable=repeatable,
    )


def accept_of(call: Call) -> str:
    """The media type to ask for, by what is awaited."""
    work = call.work
    if isinstance(work, Training) and work.fragment.flavour is Flavour.PROTOBUF:
        return PROTOBUF
    return JSON


def read(
    response: Response, calls: Sequence[Call], *, batch_id: str
) -> Sequence[Share | dict[str, object]]:
    """Split the answer of one request into one for each call, in order.

    Raises:
        UpstreamFault: it is not an answer to this request.
    """
    if isinstance(calls[0].work, Order):
        return [json_of(response)]
    output = decode_output(response.body, response.content_type)
    counts = [call.item.datums for call in calls]
    parts = split(output, counts)
    return [
        Share(part, batch_id, len(calls), sum(counts), index, output.metrics)
        for index, part in enumerate(parts)
    ]
