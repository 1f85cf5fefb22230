"""One API key at one upstream: its session, its models, its samplers, its breaker.

Nothing of one key is visible to another: sessions, lanes and breakers are the account's own.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakValueDictionary

from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.lane import Lane
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.errors import ModelGone, ModelNotFound, UpstreamFault
from tinkex_proxy.runtime.dialect import UpstreamLimits, ask_flavour, ask_limits, tighten
from tinkex_proxy.runtime.events import ModelsLost, Note
from tinkex_proxy.runtime.lanes import LaneDriver, Tools
from tinkex_proxy.runtime.models import Model, Sampler
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.query import query
from tinkex_proxy.runtime.records import BatchRecord, CreationRecord, ModelRecord, Owned, written
from tinkex_proxy.runtime.sessions import Session
from tinkex_proxy.runtime.turns import Turns
from tinkex_proxy.runtime.upstream import Upstream, json_of
from tinkex_proxy.wire.datum import Flavour

__all__ = ["Account", "AccountSettings"]

T = TypeVar("T")

# Models that are gone are remembered, so that their callers learn why; not for ever.
MAX_DEAD = 1000
# An upstream that could not tell its limits is asked again, though not before every call.
LEARN_AGAIN_S = 5.0
# Models that SDKs are making, and sessions of theirs that are alive: remembered by name only.
MAX_NAMES = 10_000
# An SDK that is gone never says so. Upstreams unload a model after some minutes without heartbeat
# (SkyRL: 300 s); three times that leaves no doubt.
SDK_SILENCE_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSettings:
    """What holds for every key.

    Attributes:
        limits: when batches leave, before the upstream's own limits are applied.
        flavour: how training bodies are encoded, or None to find out.
        heartbeat_interval_s: time between heartbeats.
        coalesce: whether calls share requests at all.
        keep_s: how long the callers of an earlier run may take to come again.
    """

    limits: Limits
    flavour: Flavour | None = None
    heartbeat_interval_s: float = 10.0
    coalesce: bool = True
    keep_s: float = 3600.0


class Account:
    """Everything one key has at the upstream.

    Args:
        key_id: the key's public name; tells nothing about the key.
        upstream: asks under this key.
        tools: submitter, poller, tasks, clock, hub of this key.
        settings: what holds for every key.
    """

    def __init__(
        self, key_id: str, upstream: Upstream, tools: Tools, settings: AccountSettings
    ) -> None:
        self.key_id = key_id
        self.upstream = upstream
        self.tools = tools
        self.settings = settings
        self.limits = settings.limits
        self.models: dict[str, Model] = {}
        self.turns = Turns()
        self._flavour = settings.flavour
        self._samplers: dict[tuple[str, str], Sampler] = {}
        # Weak: a lock lives as long as somebody makes that sampler or waits for it.
        self._making = WeakValueDictionary[tuple[str, str], asyncio.Lock]()
        self._calls: set[object] = set()
        self._learn = asyncio.Lock()
        self._expected: dict[str, tuple[Mapping[str, object], str]] = {}
        self._beats: dict[str, float] = {}
        self._learn_at = 0.0
        self._session_id: str | None = None
        self._theirs: UpstreamLimits | None = None
        self.learned = False
        self.creations: dict[str, CreationRecord] = {}
        self.session = Session(
            upstream,
            clock=tools.clock,
            tasks=tools.tasks,
            interval_s=settings.heartbeat_interval_s,
            book=tools.book,
            on_lost=self._session_lost,
        )

    @property
    def flavour(self) -> Flavour:
        """How training bodies are encoded; protobuf until something else is known."""
        return self._flavour or Flavour.PROTOBUF

    async def ready(self) -> str:
        """Give the id of a live session; learns the upstream's limits and flavour on the way."""
        session_id = await self.session.ensure()
        if session_id != self._session_id:
            self._session_id = session_id
            fields = {"session_id": session_id, "key_id": self.key_id}
            self.tools.hub.tell(Note("info", "upstream session opened", fields=fields))
        await self.learn()
        return session_id

    async def learn(self) -> None:
        """Find out what the upstream takes, if that is not known yet and it can be asked."""
        if self.learned or self.tools.clock.now() < self._learn_at:
            return
        async with self._learn:
            if not self.learned:
                theirs = await ask_limits(self.upstream, self.tools.clock)
                if theirs is not None:
                    self._theirs = theirs
                    self.limits = tighten(self.settings.limits, theirs)
                if self._flavour is None:
                    self._flavour = await ask_flavour(self.upstream)
                self.learned = theirs is not None and self._flavour is not None
                if self._flavour is not None:  # without it no body can be written
                    self._learn_at = self.tools.clock.now() + LEARN_AGAIN_S
                for model in self.models.values():
                    model.driver.flavour = self.flavour
                    model.driver.lane.set_limits(self.limits)

    def adopt(
        self,
        facts: Mapping[str, object],
        model_id: str,
        session_id: str,
        *,
        of_sdk: bool = False,
    ) -> Model:
        """Give a model that was just created its lane."""
        model = self._lane_of(facts, model_id, session_id, of_sdk=of_sdk, next_seq=1)
        model.keep()
        self.sweep()
        return model

    def snapshot(self) -> dict[str, object]:
        """What operators are shown of the key: its pace, repetitions, what the upstream holds."""
        return {
            "key_id": self.key_id,
            **self.upstream.pace.snapshot(),
            **self.upstream.retries.snapshot(),
            "queue_states": dict(self.tools.poller.states()),
        }

    def restore(self, owned: Owned) -> None:
        """Go on from where an earlier run left this key."""
        self.creations = dict(owned.creations)
        if owned.session is not None:
            self.session.restore(owned.session)
            self._session_id = owned.session.session_id
        for record in owned.models.values():
            batches = [batch for batch in owned.batches if batch.model_id == record.model_id]
            lane = owned.lanes.get(record.model_id)
            model = self._lane_of(
                record.facts,
                record.model_id,
                record.session_id,
                of_sdk=record.of_sdk,
                next_seq=_next_seq(batches, 1 if lane is None else lane.next_seq),
            )
            for caller in owned.callers:
                if caller.model_id == record.model_id:
                    model.callers.restore(caller)
            pages = [page for b in batches if (page := self._page_of(b, owned)) is not None]
            model.driver.resume(pages, keep_s=self.settings.keep_s)

    def _page_of(self, batch: BatchRecord, owned: Owned) -> Page | None:
        """The page of a request that is not over; None where nobody needs it any more."""
        called = {member.call_id for member in batch.members} - {None}
        needed_by = owned.unanswered.keys() & called
        page = Page(batch, needed_by)
        if (batch.promise is not None or batch.doubted) and not needed_by:
            self.tools.book.journal.note(*page.end())
            return None
        return page

    def _lane_of(
        self,
        facts: Mapping[str, object],
        model_id: str,
        session_id: str,
        *,
        of_sdk: bool,
        next_seq: int,
    ) -> Model:
        def on_gone(reason: str) -> None:
            model.end(reason)

        lane = Lane(self.limits, next_seq=next_seq)
        driver = LaneDriver(model_id, lane, self.tools, flavour=self.flavour, on_gone=on_gone)
        model = Model(
            facts,
            session_id=session_id,
            driver=driver,
            book=self.tools.book,
            of_sdk=of_sdk,
        )
        self.models[model_id] = model
        return model

    def model(self, model_id: str) -> Model:
        """Find a live model of this key.

        Raises:
            ModelNotFound: this proxy has not created it under this key.
            ModelGone: it is no more.
        """
        model = self.found(model_id)
        if model is None:
            raise ModelNotFound(
                f"No model {model_id!r} under this API key. Create one with POST /v1/models; the "
                "proxy keeps a model's sequence numbers, so it trains only models made through it "
                "since it started.",
                pointer="/model_id",
            )
        if model.gone is not None:
            raise ModelGone(model.gone, pointer="/model_id")
        return model

    def found(self, model_id: str) -> Model | None:
        """The model with this id, alive or not; one that an SDK has made gets its lane now."""
        expected = self._expected.pop(model_id, None)
        if expected is not None and model_id not in self.models:
            facts, session_id = expected
            self.adopt(facts, model_id, session_id, of_sdk=True)
        return self.models.get(model_id)

    def expect(self, facts: Mapping[str, object], model_id: str, session_id: str) -> None:
        """Note a model that an SDK is making; it gets a lane when the first call comes for it."""
        self._expected[model_id] = (facts, session_id)
        _bound(self._expected)
        if self.tools.book.journal.on:
            made = ModelRecord(self.key_id, model_id, session_id, True, dict(facts))  # noqa: FBT003
            self.tools.book.journal.note(written(made))

    def beat(self, session_id: str) -> None:
        """Note that an SDK's session is alive."""
        self._beats.pop(session_id, None)  # the most recently heard is last
        self._beats[session_id] = self.tools.clock.now()
        _bound(self._beats)

    def sweep(self) -> None:
        """Forget models that nobody can come for: those of SDKs that are gone, and the dead."""
        heard_since = self.tools.clock.now() - SDK_SILENCE_S
        for model_id, model in list(self.models.items()):
            last = max(model.driver.used_at, self._beats.get(model.session_id, 0.0))
            if model.of_sdk and last < heard_since and model.driver.idle:
                model.end(f"Nothing was heard of the SDK that made {model_id}.")
                del self.models[model_id]
        dead = [model_id for model_id, model in self.models.items() if model.gone is not None]
        for model_id in dead[: max(0, len(dead) - MAX_DEAD)]:
            del self.models[model_id]

    def known_sampler(self, kind: str, name: str) -> Sampler | None:
        """The same, if it is there and nothing else has to be asked first."""
        if not self.learned or self.session.current != self._session_id:
            return None
        return self._samplers.get((kind, name))

    async def sampler(self, kind: str, name: str) -> Sampler:
        """A sampling session for `base_model` or `model_path` (`kind`), made on first need."""
        await self.ready()
        if found := self._samplers.get((kind, name)):
            return found
        # A rollout begins with many samples at once; they share the session that the first makes.
        async with self._making.setdefault((kind, name), asyncio.Lock()):
            session_id = await self.ready()
            sampler = self._samplers.get((kind, name))
            if sampler is None:
                sampler = await self._make_sampler(session_id, kind, name)
                self._samplers[kind, name] = sampler
        return sampler

    async def _make_sampler(self, session_id: str, kind: str, name: str) -> Sampler:
        body = {
            "session_id": session_id,
            "sampling_session_seq_id": self.session.next_sampler_seq(),
            kind: name,
            "type": "create_sampling_session",
        }
        await self.tools.book.journal.commit()  # its number may not come again
        path = "/api/v1/create_sampling_session"
        response = await query(
            self.upstream, self.tools.clock, path, body, operation=Operation.SESSION
        )
        made = json_of(response).get("sampling_session_id")
        if not isinstance(made, str):
            raise UpstreamFault("create_sampling_session gave no sampling_session_id.")
        return Sampler(made)

    def forget(self, sampler: Sampler) -> None:
        """Drop a sampling session that the upstream no longer knows."""
        self._samplers = {k: s for k, s in self._samplers.items() if s is not sampler}

    def serve(self, call: "asyncio.Future[T]") -> None:
        """Be busy until `call` has ended: the model it makes must not find its account gone."""
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def begin(self, call: object) -> None:
        """Be busy until `end` is told of the same."""
        self._calls.add(call)

    def end(self, call: object) -> None:
        """It has ended, or never begun."""
        self._calls.discard(call)

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if this account were dropped."""
        heard_since = self.tools.clock.now() - SDK_SILENCE_S
        if self._calls or self._expected or any(at > heard_since for at in self._beats.values()):
            return False
        return all(model.gone is not None for model in self.models.values())

    def reconfigure(self, settings: AccountSettings) -> None:
        """Take other settings, for what is under way too; the flavour stays what it is."""
        self.settings = settings
        self.limits = (
            settings.limits if self._theirs is None else tighten(settings.limits, self._theirs)
        )
        for model in self.models.values():
            model.driver.set_limits(self.limits)
        self.session.reconfigure(interval_s=settings.heartbeat_interval_s)

    def close(self) -> None:
        """Stop the heartbeats; this key's breaker ends with its account."""
        self.session.stop()
        self.upstream.breaker.close()

    def drain(self) -> None:
        """Let no batch linger any more."""
        for model in self.models.values():
            model.driver.drain()

    def _session_lost(self, session_id: str, reason: str) -> None:
        lost = [m for m in self.models.values() if m.session_id == session_id and m.gone is None]
        for model in lost:
            model.end(
                f"The model {model.model_id} died with its upstream session ({reason}). "
                "Create a new model and load the weights you saved."
            )
        self._samplers.clear()
        self.tools.hub.tell(ModelsLost(session_id, len(lost), reason, self.key_id))


def _next_seq(batches: Sequence[BatchRecord], next_seq: int) -> int:
    """The first number that no admitted request has: that of the one on the wire, if there is one.

    The record of the lane may be behind its last pages.
    """
    admitted = [batch.seq_id + 1 for batch in batches if batch.promise is not None]
    return max([next_seq, *admitted])


def _bound(names: dict[str, T]) -> None:
    """Keep the newest."""
    while len(names) > MAX_NAMES:
        del names[next(iter(names))]
