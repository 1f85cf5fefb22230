"""When an open batch leaves, and how much of the queue it takes.

Calls at the head of a lane that may share a request form the open batch. It leaves:

* **alone**: its one call shares with nobody (a barrier such as `optim_step`, or coalescing off);
* **barrier**: something stands behind it that may not join. It cannot grow: waiting is loss;
* **requests / datums / bytes**: it is full;
* **idle**: the upstream owes this lane nothing and no further call has come for `idle_s`. A lone
  caller never pays the linger: an idle upstream is the dearest thing to keep waiting, and callers
  that were released together arrive within one turn of the event loop of each other;
* **linger**: the upstream is busy with earlier work of this lane and `linger_s` has passed since
  the first call came. Gathering is nearly free then (Triton's delayed batching has the same shape);
* **deadline**: half of some caller's time is gone. The other half is the upstream's;
* **drain**: the proxy is shutting down.

Two more reasons are not decided here: **bisect** (a half of a request that was refused) and
**resume** (a request of an earlier run of the proxy, sent again to learn what became of it).

`decide` is a pure function over what waits and `now`; it also says when it should be asked again.
"""

import enum
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

__all__ = ["Decision", "FlushReason", "Item", "Limits", "Waiting", "decide"]


class FlushReason(enum.Enum):
    """Why a batch left."""

    ALONE = "alone"
    BARRIER = "barrier"
    REQUESTS = "requests"
    DATUMS = "datums"
    BYTES = "bytes"
    IDLE = "idle"
    LINGER = "linger"
    DEADLINE = "deadline"
    DRAIN = "drain"
    BISECT = "bisect"
    RESUME = "resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When to flush.

    Attributes:
        linger_s: longest time the first call of a batch waits for company while the lane is busy.
        idle_s: quiet time after which a batch leaves while the lane is idle.
        max_requests: calls in one batch.
        max_datums: datums in one batch.
        max_bytes: estimated bytes in one batch, counted as the upstream's own limit counts.
        preferred_datums: batch sizes that are cheap for the upstream, ascending (empty: any). A
            batch that leaves with room to spare is cut to the largest of them that it reaches.
    """

    linger_s: float = 0.005
    idle_s: float = 0.0005
    max_requests: int = 10
    max_datums: int = 1024
    max_bytes: int = 5_000_000
    preferred_datums: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One call as the lane sees it: what it weighs and whom it may share with.

    Attributes:
        id: the call's number, unique in its lane.
        key: calls with equal keys may share a request; None shares with nobody.
        datums: how many datums it brings.
        size_bytes: its estimated size.
        deadline: moment at which its caller stops waiting, or None.
    """

    id: int
    key: Hashable | None
    datums: int = 0
    size_bytes: int = 0
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """An item and the moment it came."""

    item: Item
    since: float

    @property
    def flush_at(self) -> float | None:
        """Moment at which half of this caller's time is gone, or None."""
        deadline = self.item.deadline
        return None if deadline is None else self.since + (deadline - self.since) / 2


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Attributes:
        take: how many items leave, from the head; 0 when none does.
        reason: why they leave; None when none does.
        ask_at: when to ask again if nothing else happens; None when only an event can change this.
    """

    take: int
    reason: FlushReason | None
    ask_at: float | None = None


NOTHING = Decision(0, None)


def decide(
    queue: Iterable[Waiting], limits: Limits, *, now: float, busy: bool, draining: bool = False
) -> Decision:
    """Decide whether the open batch at the head of `queue` leaves.

    Args:
        queue: what waits on one lane, oldest first.
        limits: when to flush.
        now: the moment, in the same seconds as `Waiting.since`.
        busy: whether the upstream still owes this lane an answer.
        draining: whether nothing more will come.
    """
    batch, full = _gather(queue, limits)
    if not batch:
        return NOTHING
    if full is not None:
        return Decision(len(batch), full)
    if draining:
        return Decision(len(batch), FlushReason.DRAIN)
    soft = (
        (batch[0].since + limits.linger_s, FlushReason.LINGER)
        if busy
        else (
            min(batch[-1].since + limits.idle_s, batch[0].since + limits.linger_s),
            FlushReason.IDLE,
        )
    )
    urgent = [(at, FlushReason.DEADLINE) for w in batch if (at := w.flush_at) is not None]
    ask_at, reason = min([soft, *urgent], key=lambda due: due[0])
    if now < ask_at:
        return Decision(0, None, ask_at)
    return Decision(_preferred(batch, limits), reason)


def _gather(queue: Iterable[Waiting], limits: Limits) -> tuple[list[Waiting], FlushReason | None]:
    """Take the run of items that may share one request; say why it can grow no more, if so."""
    batch: list[Waiting] = []
    datums = size = 0
    for waiting in queue:
        item = waiting.item
        if not batch and item.key is None:
            return [waiting], FlushReason.ALONE
        if batch and item.key != batch[0].item.key:
            return batch, FlushReason.BARRIER
        over = _over(datums + item.datums, size + item.size_bytes, limits)
        if batch and over is not None:
            return batch, over
        batch.append(waiting)
        datums += item.datums
        size += item.size_bytes
        if len(batch) >= limits.max_requests:
            return batch, FlushReason.REQUESTS
    return batch, _over(datums + 1, size + 1, limits)


def _over(datums: int, size: int, limits: Limits) -> FlushReason | None:
    """Which limit of one batch these sums pass, if any."""
    if datums > limits.max_datums:
        return FlushReason.DATUMS
    return FlushReason.BYTES if size > limits.max_bytes else None


def _preferred(batch: list[Waiting], limits: Limits) -> int:
    """How many items to take so that their datums make the largest preferred size, else all."""
    best, datums = len(batch), 0
    reached = 0
    for count, waiting in enumerate(batch, 1):
        datums += waiting.item.datums
        if datums in limits.preferred_datums and datums > reached:
            best, reached = count, datums
    return best
