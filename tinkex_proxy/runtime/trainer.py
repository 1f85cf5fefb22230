"""What a caller can ask for, carried out: models, training, weights.

Each function takes an account and a decoded body and gives the answer's fields; each raises
`ProxyError`s only. `Ticket` is the caller's side: how long it waits, whether it shares, and how to
take its work back while that is still possible.

A call that an earlier run of the proxy began is done again from its start: what of it was sent is
found by the names of its parts, so those, and how it is cut into pieces, come out the same.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TypeVar

import msgspec
from typing_extensions import override

from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.retry import Kind
from tinkex_proxy.core.timeline import Part, Timeline
from tinkex_proxy.errors import DeadlineExceeded, JournalUnavailable, ProxyError, UpstreamFault
from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.aside import LARGE_BODY_BYTES
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.endable import is_cancelled
from tinkex_proxy.runtime.events import CallCut, Trained
from tinkex_proxy.runtime.futures import Waiters
from tinkex_proxy.runtime.intake import Hold
from tinkex_proxy.runtime.models import Model
from tinkex_proxy.runtime.records import CreationRecord, deleted, written
from tinkex_proxy.runtime.submit import Admitted
from tinkex_proxy.runtime.trace_context import TraceContext
from tinkex_proxy.runtime.turns import Turn, Turns
from tinkex_proxy.runtime.upstream import Ask, json_of
from tinkex_proxy.runtime.whose import NOBODY, Behalf
from tinkex_proxy.runtime.work import (
    Answered,
    Call,
    Order,
    Origin,
    Share,
    Training,
    Work,
)
from tinkex_proxy.wire.chunk import chunk
from tinkex_proxy.wire.datum import Datum
from tinkex_proxy.wire.loss import own_loss
from tinkex_proxy.wire.merge import encode_fragment
from tinkex_proxy.wire.output import Output
from tinkex_proxy.wire.plain import (
    BatchInfo,
    CreateModel,
    LoadWeights,
    OptimStep,
    SaveWeights,
    TrainingAnswer,
    TrainingCall,
)
from tinkex_proxy.wire.reduce import reduce

__all__ = [
    "Ticket",
    "create_model",
    "decoded",
    "load_weights",
    "optim_step",
    "save_weights",
    "train",
    "unload",
]

T = TypeVar("T")


class _Spending:
    """A context whose time is one part of a call's."""

    __slots__ = ("_clock", "_line", "_part", "_since")

    def __init__(self, line: Timeline, part: Part, clock: Clock) -> None:
        self._line = line
        self._part = part
        self._clock = clock

    def __enter__(self) -> None:
        """It begins."""
        self._since = self._clock.now()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It ends."""
        self._line.waited(self._part, self._since, self._clock.now())


class _Unsent:
    """A context in which something of a call is on its way."""

    __slots__ = ("_ticket",)

    def __init__(self, ticket: "Ticket") -> None:
        self._ticket = ticket

    def __enter__(self) -> None:
        """It is."""
        self._ticket.on_way += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It has left, or never will."""
        self._ticket.on_way -= 1


class _Placing(_Unsent):
    """A context in which the work of one item is on its way to its lane."""

    __slots__ = ()

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It is there, or never will be; the last one lets others go ahead."""
        ticket = self._ticket
        ticket.on_way -= 1
        ticket.items -= 1
        if ticket.items <= 0:
            ticket.leave()


class Ticket(msgspec.Struct, eq=False):
    """One caller's call.

    Attributes:
        deadline: moment at which the caller stops waiting, or None.
        coalesce: False when the caller wants a request of its own.
        origin: the call as the journal knows it, if somebody may come for it again.
        hold: what the call holds, which its work adds to; None where the proxy itself calls.
        timeline: where its time goes, along its critical path where it is in several pieces.
        model_ids: the models that it is about, in order.
        trace: its place in a trace, if it belongs to one.
        large: whether its body is decoded beside the event loop.
        items: its items whose work is not on a lane yet.
        place: its place behind the calls of its key that came before.
        on_way: how much of it is on its way to where it leaves from.
    """

    deadline: float | None = None
    coalesce: bool = True
    origin: Origin | None = None
    hold: Hold | None = None
    timeline: Timeline = msgspec.field(default_factory=partial(Timeline, 0.0))
    model_ids: dict[str, None] = {}
    trace: TraceContext | None = None
    large: bool = False
    items: int = 1
    place: Turn | None = None
    on_way: int = 0
    _placed: list[tuple[Model, list[Call]]] = []
    _over: bool = False

    def unsent(self) -> "_Unsent":
        """While something of this call is on its way, and nothing of that has left."""
        return _Unsent(self)

    def take_turn(self, turns: Turns) -> None:
        """Stand behind the calls of this key that came before, if it does not yet."""
        self.place = self.place or turns.take(large=self.large)

    def placing(self) -> "_Placing":
        """While the work of one item is on its way to its lane."""
        return _Placing(self)

    async def turn(self) -> None:
        """Wait until those that came before have put their work on their lanes."""
        if self.place is not None:
            await self.place.come()

    async def pass_by(self, turns: Turns) -> None:
        """Wait as for a turn, and stand in nobody's way from then on."""
        if self.place is None:
            await turns.pass_by()
            return
        await self.place.come()
        self.place.leave()

    def leave(self) -> None:
        """Let those that came later go ahead: nothing of this call goes to a lane any more."""
        if self.place is not None:
            self.place.leave()

    @property
    def behalf(self) -> Behalf:
        """On whose behalf something is asked that is no call on a lane."""
        whose = None if self.origin is None else self.origin.whose
        return NOBODY if whose is None else Behalf((whose,), whose.trace)

    def spending(self, part: Part, clock: Clock) -> "_Spending":
        """While something is waited for that is no call on a lane."""
        return _Spending(self.timeline, part, clock)

    def put(self, model: Model, works: Sequence[Work], *, item: int = 0) -> list[Call]:
        """Put work on a model's lane in this caller's name.

        Args:
            model: whose lane.
            works: the pieces of one of the call's items.
            item: which of them.

        Raises:
            DeadlineExceeded: the caller is gone by now.
            Overloaded: the lane is full, or what was made of the body does not fit.
        """
        if self._over:
            raise _too_late()
        if self.hold is not None:
            owed = self.sent(model)
            self.hold.queue(model.depth, awaited=owed)
            self.hold.add(sum(map(_size_of, works)), owed=owed)
        self.model_ids[model.model_id] = None
        calls = model.put(works, deadline=self.deadline, origin=self.origin, part=str(item))
        self._placed.append((model, calls))
        return calls

    def sent(self, model: Model) -> bool:
        """Whether an earlier run has sent a part of this call."""
        return self.origin is not None and model.driver.flights.carries(self.origin.id)

    def sizes(self, model: Model, item: int) -> list[int]:
        """How an earlier run cut one of the call's items, as far as it was sent."""
        if self.origin is None:
            return []
        return model.driver.flights.sizes(self.origin.id, str(item))

    def withdraw(self) -> bool:
        """Take back what has not left; tell whether that was all, so that nothing runs.

        What was put together leaves together: a call in several parts goes on once one of them has
        left. The calls of a batch are taken back each by itself.
        """
        self._over = bool(self._placed or self.on_way)
        self._placed = [
            (model, calls) for model, calls in self._placed if not model.driver.withdraw(calls)
        ]
        return self._over and not self._placed


async def create_model(account: Account, body: CreateModel, ticket: Ticket) -> dict[str, object]:
    """Create a model and its lane."""
    lora: dict[str, object] = {
        "rank": body.rank,
        "train_unembed": body.train_unembed,
        "train_mlp": body.train_mlp,
        "train_attn": body.train_attn,
    }
    if body.seed is not None:
        lora["seed"] = body.seed
    fields: dict[str, object] = {
        "base_model": body.base_model,
        "lora_config": lora,
        "type": "create_model",
    }
    if body.metadata:
        fields["user_metadata"] = body.metadata
    session_id, admitted = await _create(account, fields, ticket)
    promised = json_of(admitted.response).get("model_id")
    result: dict[str, object] = {}
    if admitted.request_id is not None:
        done = await account.tools.poller.result(
            admitted.request_id, waiters=Waiters((ticket.timeline,), ticket.behalf)
        )
        result = json_of(done)
    model_id = result.get("model_id") or promised
    if not isinstance(model_id, str):
        raise UpstreamFault("create_model was answered without a model_id.")
    ticket.model_ids[model_id] = None
    facts = {
        "model_id": model_id,
        "base_model": body.base_model,
        "rank": body.rank,
        "seed": body.seed,
        "metadata": body.metadata,
    }
    if model_id not in account.models:  # an earlier run may have had it already
        account.adopt(facts, model_id, session_id)
    _forget_creation(account, ticket)
    # Its caller is told what only our journal knows: before that, it has to be there. It is made
    # all the same, so where the journal cannot be written that is no reason to keep it quiet.
    with suppress(JournalUnavailable), ticket.spending(Part.JOURNAL, account.tools.clock):
        await account.tools.book.journal.commit()
    return facts


async def decoded(account: Account, body: bytes, ticket: Ticket, decode: Callable[[bytes], T]) -> T:
    """Decode the body of training calls, beside the event loop if it is large.

    Args:
        account: whose calls they are.
        body: the body.
        ticket: its caller's side; has its turn from here on.
        decode: decodes it.
    """
    ticket.large = len(body) >= LARGE_BODY_BYTES
    ticket.take_turn(account.turns)
    with ticket.unsent():
        if not ticket.large:
            return decode(body)
        return await account.tools.aside.do(partial(decode, body), large=True)


async def train(
    account: Account,
    call: TrainingCall,
    ticket: Ticket,
    *,
    forward_only: bool = False,
    item: int = 0,
) -> TrainingAnswer:
    """Run `forward_backward` (or `forward`), chunked if it is large, coalesced if it is small.

    Args:
        account: whose model it is.
        call: what is asked.
        ticket: its caller's side.
        forward_only: whether no gradient is wanted.
        item: which of several calls that came in one.
    """
    with ticket.placing():
        model = account.model(call.model_id)
        if not ticket.sent(model):
            account.upstream.breaker.check()
        sizes = ticket.sizes(model, item)
        if not account.learned and sum(sizes) < len(call.datums):  # what was sent needs no encoding
            with ticket.spending(Part.UPLOAD, account.tools.clock):
                await account.ready()
        encoding = partial(_works, account, call, sizes, ticket, forward_only=forward_only)
        works = await account.tools.aside.do(encoding, large=True) if ticket.large else encoding()
        await ticket.turn()
        if len(works) > 1:
            account.tools.hub.tell(CallCut(len(works)))
        calls = ticket.put(model, works, item=item)
    shares = await _all(calls, ticket, account.tools.clock)
    own = [share for share in shares if isinstance(share, Share)]
    answering = partial(_answer, call, own)
    answer = await account.tools.aside.do(answering, large=True) if ticket.large else answering()
    if answer.loss is not None and not forward_only:
        account.tools.hub.tell(Trained(call.model_id, answer.loss, len(call.datums)))
    return answer


def _cut(account: Account, call: TrainingCall, sizes: Sequence[int]) -> list[tuple[Datum, ...]]:
    """The call's pieces: as an earlier run cut it, as far as it was sent; the rest as it fits."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(tuple(call.datums[at : at + size]))
        at += size
    limits = account.limits
    rest = chunk(call.datums[at:], max_datums=limits.max_datums, max_bytes=limits.max_bytes)
    return [*pieces, *rest]


async def optim_step(
    account: Account, body: OptimStep, ticket: Ticket, *, item: int = 0
) -> dict[str, object]:
    """Apply the gradients gathered so far."""
    fields = {"type": "optim_step", "adam_params": msgspec.to_builtins(body.adam_params)}
    work = Order("/api/v1/optim_step", fields)
    return await order(account, body.model_id, ticket, work, item=item)


async def save_weights(
    account: Account, body: SaveWeights, ticket: Ticket, *, for_sampler: bool
) -> dict[str, object]:
    """Save a checkpoint, for training or for sampling."""
    kind = "save_weights_for_sampler" if for_sampler else "save_weights"
    fields: dict[str, object] = {"path": body.path, "type": kind}
    return await order(account, body.model_id, ticket, Order(f"/api/v1/{kind}", fields))


async def load_weights(account: Account, body: LoadWeights, ticket: Ticket) -> dict[str, object]:
    """Load a checkpoint into a model."""
    fields = {"path": body.path, "optimizer": body.optimizer, "type": "load_weights"}
    return await order(account, body.model_id, ticket, Order("/api/v1/load_weights", fields))


async def unload(account: Account, model_id: str, ticket: Ticket) -> dict[str, object]:
    """Unload a model once everything before it has been submitted, and forget its lane."""
    ticket.take_turn(account.turns)
    with ticket.placing():
        await ticket.turn()
        model = account.model(model_id)
        work = Order("/api/v1/unload_model", {"type": "unload_model"})
        calls = ticket.put(model, [work])
    try:
        await _all(calls, ticket, account.tools.clock)
        unloaded = True
    except ProxyError as error:
        if error.code not in {"model_gone", "upstream_refused"}:
            raise
        unloaded = False  # an upstream without unload_model ends the model with its session
    model.end(f"The model {model_id} was deleted.")
    del account.models[model_id]
    return {"model_id": model_id, "deleted": True, "unloaded_upstream": unloaded}


async def order(
    account: Account, model_id: str, ticket: Ticket, work: Order, *, item: int = 0
) -> dict[str, object]:
    """Put one order on a lane and wait for its answer."""
    ticket.take_turn(account.turns)
    with ticket.placing():
        await ticket.turn()
        model = account.model(model_id)
        if not ticket.sent(model):
            account.upstream.breaker.check()
        calls = ticket.put(model, [work], item=item)
    (answer,) = await _all(calls, ticket, account.tools.clock)
    return {k: v for k, v in answer.items() if k != "type"} if isinstance(answer, dict) else {}


async def _create(
    account: Account, fields: dict[str, object], ticket: Ticket
) -> tuple[str, Admitted]:
    """Submit `create_model`; a session that has ended unnoticed is replaced once."""
    for may_retry in (True, False):
        creation, earlier = await _creation(account, fields, ticket)
        ask = Ask(
            operation=Operation.SUBMIT,
            path="/api/v1/create_model",
            body=creation.body,
            identity=creation.identity,
            kind=Kind.CREATE_MODEL,
            behalf=ticket.behalf,
            repeatable=account.tools.recognition.known(account.flavour) is not False,
            doubtful=earlier,
        )
        with ticket.spending(Part.UPLOAD, account.tools.clock):
            verdict = await account.tools.submitter.submit(ask)
        if isinstance(verdict, Admitted):
            return creation.session_id, verdict
        account.creations.pop(creation.call_id, None)
        account.tools.book.journal.note(deleted(creation))
        # A 404 can also be about the base model, and then the session has others that are alive.
        ended = verdict.status in {404, 410} and not await account.session.beat(creation.session_id)
        if not ended or not may_retry:
            raise verdict.error
    raise AssertionError("unreachable")  # pragma: no cover


async def _creation(
    account: Account, fields: dict[str, object], ticket: Ticket
) -> tuple[CreationRecord, bool]:
    """The request that makes a model, in the journal; that of an earlier run, if there was one.

    The upstream knows a model by its number in its session, so the same bytes make the same model.
    """
    origin = ticket.origin if ticket.origin is not None and ticket.origin.recorded else None
    if origin is not None and (earlier := account.creations.get(origin.id)) is not None:
        return earlier, True
    account.upstream.breaker.check()  # neither a number nor a record for what is not sent
    clock = account.tools.clock
    with ticket.spending(Part.UPLOAD, clock):
        session_id = await account.ready()
    numbered = {"session_id": session_id, "model_seq_id": account.session.next_model_seq()}
    body = msgspec.json.encode({**fields, **numbered})
    name = "" if origin is None else origin.id
    creation = CreationRecord(account.key_id, name, session_id, body, uuid.uuid4().hex)
    changes = [] if origin is None else [*origin.unwritten(), written(creation)]
    with ticket.spending(Part.JOURNAL, clock):
        await account.tools.book.journal.commit(changes)
    if origin is not None:
        account.creations[origin.id] = creation
    return creation, False


def _forget_creation(account: Account, ticket: Ticket) -> None:
    """The model is made: its request goes out of the journal when the call's answer is in it."""
    origin = ticket.origin
    creation = None if origin is None else account.creations.pop(origin.id, None)
    if origin is not None and creation is not None:
        origin.closing.append(deleted(creation))


async def _all(calls: Sequence[Call], ticket: Ticket, clock: Clock) -> list[Answered]:
    """Wait for every piece; the first failure, in order, is the call's."""
    done: Sequence[Answered | BaseException]
    try:
        if len(calls) == 1:  # as nearly always
            done = [await _ended(calls[0].answer)]
        else:
            done = await asyncio.gather(*(call.answer for call in calls), return_exceptions=True)
    finally:
        for call in calls:
            ticket.timeline.join(call.timeline, clock.now())
    answers = []
    for number, answer in enumerate(done):
        if isinstance(answer, asyncio.CancelledError):
            raise _too_late()
        if isinstance(answer, BaseException):
            if len(calls) > 1 and isinstance(answer, ProxyError):
                worked = sum(1 for other in done if not isinstance(other, BaseException))
                # Made again, the whole of it would run again.
                answer.retryable = all(
                    isinstance(other, ProxyError) and other.retryable for other in done
                )
                answer.detail += (
                    f" This call was sent in {len(calls)} parts; part {number + 1} failed and "
                    f"{worked} succeeded: their gradients count."
                )
            raise answer
        answers.append(answer)
    return answers


async def _ended(answer: "asyncio.Future[Answered]") -> Answered | BaseException:
    """What a piece has come to, its failure included; as `asyncio.gather` gives it."""
    try:
        return await answer
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        return error
    except Exception as error:  # noqa: BLE001 - whoever asks raises it
        return error


def _size_of(work: Work) -> int:
    """What a training call holds beyond its body: its numbers, packed, and their encoding."""
    return 2 * len(work.fragment.data) if isinstance(work, Training) else 0


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("The caller was gone before this part left; nothing of it was sent.")


def _works(
    account: Account,
    call: TrainingCall,
    sizes: Sequence[int],
    ticket: Ticket,
    *,
    forward_only: bool,
) -> list[Training]:
    """The call's pieces, encoded."""
    coalesce = ticket.coalesce and account.settings.coalesce
    return [
        Training(
            fragment=encode_fragment(part, account.flavour),
            loss_fn=call.loss_fn,
            loss_fn_config=call.loss_fn_config,
            forward_only=forward_only,
            coalesce=coalesce,
        )
        for part in _cut(account, call, sizes)
    ]


def _answer(call: TrainingCall, shares: Sequence[Share]) -> TrainingAnswer:
    output: Output = reduce([share.output for share in shares])
    loss = own_loss(call.loss_fn, call.datums, output)
    requests = max(share.requests for share in shares)
    shared = requests > 1
    metrics: dict[str, float] = {} if shared else dict(output.metrics)
    if shared and loss is not None:
        metrics["loss:sum"] = loss
    first = shares[0]
    return TrainingAnswer(
        loss=loss,
        loss_fn_outputs=output.records,
        metrics=metrics,
        batch=BatchInfo(
            id=first.batch_id,
            requests=requests,
            datums=sum(share.datums for share in shares),
            index=first.index,
            metrics=dict(first.metrics),
        ),
    )
