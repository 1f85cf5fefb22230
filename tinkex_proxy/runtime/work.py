"""What travels on a lane, and how a batch of it becomes one request and one answer each."""

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol, TypeAlias

import msgspec
from msgspec.structs import replace

from tinkex_proxy.core.coalesce import Item
from tinkex_proxy.core.lane import Batch
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.runtime.pace import Leave
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.store import Change
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import JSON, PROTOBUF, Ask, json_of
from tinkex_proxy.runtime.whose import NOBODY, Behalf, Whose
from tinkex_proxy.wire.datum import Flavour
from tinkex_proxy.wire.merge import Fragment, Submit, config_bytes, merge
from tinkex_proxy.wire.output import Output, decode_output, is_protobuf
from tinkex_proxy.wire.sdk import SdkOrder, SdkTraining, own_answer, own_json_answer
from tinkex_proxy.wire.split import split, split_protobuf

__all__ = [
    "BATCH_HEADER",
    "Answered",
    "Call",
    "Order",
    "Origin",
    "Share",
    "Training",
    "Work",
    "accept_of",
    "encode",
    "read",
]

# Says which upstream request carried a call.
BATCH_HEADER = "x-tinkex-batch"


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A `forward_backward` or `forward` of one caller.

    Attributes:
        fragment: its datums, encoded for the upstream.
        loss_fn: name of the loss.
        loss_fn_config: the loss's parameters.
        forward_only: whether no gradient is wanted; such a call is a barrier.
        coalesce: whether it may share a request.
        of_sdk: the request that it was, if an SDK sent it: its answer is wanted as the upstream
            gives it.
    """

    fragment: Fragment
    loss_fn: str
    loss_fn_config: Mapping[str, float | str] | bytes
    forward_only: bool = False
    coalesce: bool = True
    of_sdk: SdkTraining | None = None

    @property
    def key(self) -> Hashable | None:
        """Calls with equal keys may share a request."""
        if self.forward_only or not self.coalesce:
            return None
        config = self.loss_fn_config
        if not isinstance(config, bytes):
            config = config_bytes(config)
        return (self.fragment.flavour, self.loss_fn, config)


class Order(msgspec.Struct, frozen=True):
    """A call that shares with nobody: `optim_step`, saving, loading, unloading.

    Attributes:
        path: where it goes.
        fields: what it says, but for the model and the number.
        of_sdk: the request that it was, if an SDK sent it: its answer is wanted as the upstream
            gives it.
    """

    path: str
    fields: Mapping[str, object]
    of_sdk: SdkOrder | None = None


Work: TypeAlias = Training | Order


class Share(msgspec.Struct, frozen=True):
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


# What a call comes to: a `Share` for training, the upstream's JSON object for an order, or for an
# SDK's call the answer as the upstream gives it.
Answered: TypeAlias = Share | dict[str, object] | Response


class Origin(Protocol):
    """The caller's call that some work is part of, as the journal knows it.

    Attributes:
        pages: the journal's pages that hold parts of it.
        closing: what else is written with its answer.
        whose: its name in logs and traces.
    """

    pages: list[Page]
    closing: list[Change]
    whose: Whose | None

    @property
    def id(self) -> str:
        """Its name, in this run and in a later one."""
        ...

    @property
    def recorded(self) -> bool:
        """Whether the journal knows it."""
        ...

    def unwritten(self) -> Sequence[Change]:
        """What has to be written before a part of it leaves."""
        ...


class Call(msgspec.Struct, eq=False):
    """One piece of work on a lane, and where its answer will be.

    Attributes:
        work: what is asked.
        item: how the lane sees it.
        timeline: where its time goes, from when it came.
        answer: what it comes to.
        origin: the caller's call that it is part of, if somebody may come for that again.
        part: which part; the same when the call is done again.
        admitted: for an SDK's call, the upstream's answer to the submit.
        left: whether it is on the wire or beyond.
    """

    work: Work
    item: Item
    timeline: Timeline
    answer: "asyncio.Future[Answered]"
    origin: Origin | None = None
    part: str = ""
    admitted: "asyncio.Future[Response] | None" = None
    left: bool = False


def encode(  # noqa: PLR0913 - what a request is made of
    model_id: str,
    batch: Batch,
    calls: Sequence[Call],
    *,
    repeatable: bool,
    identity: str,
    leave: Leave | None = None,
    behalf: Behalf = NOBODY,
) -> Ask:
    """Make the one request that carries `calls`.

    Training goes in the flavour that its fragments were written in.

    Args:
        model_id: the model.
        batch: what leaves together.
        calls: the calls of its items, in order.
        repeatable: whether the upstream is known to know a repetition again.
        identity: sent along with every repetition.
        leave: to send it the first time, if that has been waited for.
        behalf: whose calls these are.
    """
    first = calls[0].work
    submit = _untouched(batch, first) if len(calls) == 1 else None
    if submit is None:
        submit = _written(model_id, batch, calls)
    return Ask(
        operation=Operation.SUBMIT,
        path=submit.path,
        body=submit.body,
        content_type=submit.content_type,
        identity=identity,
        repeatable=repeatable,
        persistent=any(call.work.of_sdk for call in calls),
        flow=None if leave is None else leave.flow,
        leave=leave,
        behalf=behalf,
    )


def _untouched(batch: Batch, work: Work) -> Submit | None:
    """An SDK's request as it came, where its number is the lane's too.

    So nothing is copied, and an upstream recognises it if it ever comes past the lanes.
    """
    sdk = work.of_sdk
    if sdk is None or sdk.body is None or sdk.seq_id != batch.seq_id:
        return None
    if isinstance(work, Order):
        return Submit(work.path, JSON, sdk.body)
    if work.fragment.flavour is Flavour.PROTOBUF:
        return Submit("/api/v1/forward_backward", PROTOBUF, sdk.body)
    path = "/api/v1/forward" if work.forward_only else "/api/v1/forward_backward"
    return Submit(path, JSON, sdk.body)


def _written(model_id: str, batch: Batch, calls: Sequence[Call]) -> Submit:
    """A request of our own, under the lane's number."""
    first = calls[0].work
    if isinstance(first, Order):
        fields = {**first.fields, "model_id": model_id, "seq_id": batch.seq_id}
        return Submit(first.path, JSON, msgspec.json.encode(fields))
    return merge(
        [call.work.fragment for call in calls if isinstance(call.work, Training)],
        model_id=model_id,
        seq_id=batch.seq_id,
        loss_fn=first.loss_fn,
        loss_fn_config=first.loss_fn_config,
        forward_only=first.forward_only,
        flavour=first.fragment.flavour,
    )


def accept_of(call: Call) -> str:
    """The media type to ask for, by what is awaited."""
    work = call.work
    if isinstance(work, Training) and work.fragment.flavour is Flavour.PROTOBUF:
        return PROTOBUF
    return JSON


def read(
    response: Response, works: Sequence[Work | None], counts: Sequence[int], *, batch_id: str
) -> Sequence[Answered | None]:
    """Split the answer of one request into one for each part, in order.

    Args:
        response: the answer.
        works: what was asked in each part; None where nobody is there for it.
        counts: datums of each part.
        batch_id: names the request.

    Raises:
        UpstreamFault: it is not an answer to this request.
    """
    first = next(work for work in works if work is not None)
    if isinstance(first, Order):
        return [response if first.of_sdk else json_of(response)]
    if len(works) == 1 and first.of_sdk:
        return [_named(response, response.body, batch_id, counts, 0)]
    output = decode_output(response.body, response.content_type)
    parts = split(output, counts)
    shares: list[Answered | None] = [
        Share(part, batch_id, len(works), sum(counts), index, output.metrics)
        for index, part in enumerate(parts)
    ]
    of_sdk = [
        (index, work.of_sdk)
        for index, work in enumerate(works)
        if isinstance(work, Training) and work.of_sdk
    ]
    if of_sdk and is_protobuf(response.content_type):
        pieces = split_protobuf(response.body, counts)
        for index, training in of_sdk:
            body = own_answer(pieces[index], training)
            shares[index] = _named(response, body, batch_id, counts, index)
    else:
        for index, _ in of_sdk:
            body = own_json_answer(parts[index])
            shares[index] = _named(response, body, batch_id, counts, index)
    return shares


def _named(
    response: Response, body: bytes, batch_id: str, counts: Sequence[int], index: int
) -> Response:
    """An answer for an SDK, with the name of the request that carried it."""
    said = f"{batch_id}; requests={len(counts)}; datums={sum(counts)}; index={index}"
    headers = {"content-type": response.headers.get("content-type", JSON), BATCH_HEADER: said}
    return replace(response, headers=headers, body=body)
