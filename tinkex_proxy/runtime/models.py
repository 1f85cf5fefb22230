"""A model: its lane, its life, and the sampler that shows its present weights."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.errors import ModelGone
from tinkex_proxy.runtime.callers import Callers
from tinkex_proxy.runtime.journal import Book
from tinkex_proxy.runtime.lanes import LaneDriver
from tinkex_proxy.runtime.records import ModelRecord, deleted, written
from tinkex_proxy.runtime.work import Call, Order, Origin, Work

__all__ = ["Model", "Sampler"]

# These change weights, so that a sampler made before them is stale.
_CHANGING = frozenset({"/api/v1/optim_step", "/api/v1/load_weights"})


@dataclass(slots=True)
class Sampler:
    """A sampling session of the upstream and its own sequence of requests.

    Attributes:
        sampling_session_id: the upstream's name for it.
        next_seq: number of the next sample.
        made: where the time went that saving the weights for it took, if it shows a model's.
    """

    sampling_session_id: str
    next_seq: int = 0
    made: Timeline | None = None

    def take_seq(self) -> int:
        """The `seq_id` of the next sample."""
        self.next_seq += 1
        return self.next_seq - 1


@dataclass(slots=True)
class _Shown:
    """A sampler made, or being made, from the weights of one version."""

    version: int
    sampler: "asyncio.Task[Sampler]"


class Model:
    """One model of one upstream session.

    Args:
        facts: what is known of it: `model_id`, `base_model`, `rank`, …
        session_id: the upstream session it lives and dies with.
        driver: its lane.
        book: its key's part of the journal.
        of_sdk: whether an SDK made it, whose heartbeats keep it alive.
    """

    def __init__(
        self,
        facts: Mapping[str, object],
        *,
        session_id: str,
        driver: LaneDriver,
        book: Book,
        of_sdk: bool = False,
    ) -> None:
        self.facts = facts
        self.session_id = session_id
        self.of_sdk = of_sdk
        self.driver = driver
        self.gone: str | None = None
        self.weights_version = 0
        self.shown: _Shown | None = None
        self._book = book
        self.callers = Callers(
            self.make,
            self.enqueue,
            driver.later,
            book=book,
            model_id=driver.model_id,
        )

    @property
    def model_id(self) -> str:
        """The upstream's id."""
        return self.driver.model_id

    @property
    def depth(self) -> int:
        """Calls that wait on the lane, or for those that their callers counted before them."""
        return self.driver.lane.depth + self.callers.waiting

    def put(
        self,
        works: Sequence[Work],
        *,
        deadline: float | None,
        origin: Origin | None = None,
        part: str = "0",
    ) -> list[Call]:
        """Put work on the lane; see `LaneDriver.put`.

        Raises:
            ModelGone: the model is no more.
        """
        self._check()
        self._note(works)
        return self.driver.put(works, deadline=deadline, origin=origin, part=part)

    def make(self, work: Work, origin: Origin | None = None) -> Call:
        """Make a call of some work, to be put on the lane by `enqueue`.

        Raises:
            ModelGone: the model is no more.
        """
        self._check()
        return self.driver.make(work, origin=origin)

    def enqueue(self, calls: Sequence[Call]) -> None:
        """Put calls on the lane, in this order."""
        self._note([call.work for call in calls])
        self.driver.enqueue(calls)

    def _check(self) -> None:
        if self.gone is not None:
            raise ModelGone(self.gone)

    def _note(self, works: Sequence[Work]) -> None:
        """Count the versions of the weights."""
        if any(isinstance(work, Order) and work.path in _CHANGING for work in works):
            self.weights_version += 1

    def show(self, sampler: "asyncio.Task[Sampler]") -> None:
        """Remember the sampler of the present weights."""
        self.shown = _Shown(self.weights_version, sampler)

    def present_sampler(self) -> "asyncio.Task[Sampler] | None":
        """The sampler of the present weights, made or in the making, if there is one."""
        shown = self.shown
        if shown is None or shown.version != self.weights_version:
            return None
        failed = shown.sampler.done() and (
            shown.sampler.cancelled() or shown.sampler.exception() is not None
        )
        return None if failed else shown.sampler

    def end(self, reason: str) -> None:
        """Declare the model gone and fail what waits for it."""
        if self.gone is None:
            self.gone = reason
            self.driver.close(ModelGone(reason))
            self.callers.close()
            self._book.journal.note(deleted(self._record()))

    def keep(self) -> None:
        """Have it outlast this process."""
        if self._book.journal.on:
            self._book.journal.note(written(self._record()))

    def _record(self) -> ModelRecord:
        return ModelRecord(
            self._book.owner, self.model_id, self.session_id, self.of_sdk, dict(self.facts)
        )

    def snapshot(self, now: float) -> dict[str, object]:
        """What `GET /lanes` shows."""
        lane = self.driver.lane
        state = self.driver.queue_state
        on_wire = lane.on_wire
        oldest = lane.oldest_since
        return {
            "model_id": self.model_id,
            "state": "alive" if self.gone is None else "gone",
            "depth": lane.depth,
            "held_back": self.callers.waiting,
            "oldest_wait_s": None if oldest is None else round(now - oldest, 6),
            "on_wire_seq": None if on_wire is None else on_wire.seq_id,
            "awaiting_results": lane.owed,
            "awaiting_callers": len(self.driver.flights),
            "next_seq": lane.next_seq,
            "calls": self.driver.items,
            "requests": self.driver.batches,
            "queue_state": None if state is None else state.state,
            "queue_state_reason": None if state is None else state.reason,
        }
