"""A lane: the calls of one model, in the order they came, under sequence numbers of our own.

The upstream runs a model's requests by `seq_id` (or, as SkyRL does, by arrival). Both orders are
the same here, because at most one submit of a lane is on the wire at a time and every submit takes
the next number. Three callers that share a request use one number, so there is never a gap for a
later `optim_step` to wait behind.

A submit ends in one of three ways. **Admitted**: the number is used up, its answer is awaited
elsewhere, the next submit may go at once. **Refused** (nothing ran): the number is given back, and
a shared request is asked again in halves until the call that spoils it stands alone.
**Unanswered**: the lane stays on that submit: whoever owns the socket repeats the same bytes under
the same number, because passing on could leave a gap or apply a gradient twice.

A lane may begin where an earlier run of the program left off: with answers owed, and with a submit
on the wire of which nobody knows whether the upstream has it. Nothing else leaves before that is
known.

A number may be used ahead of its turn, by a request of the lane's driver that is nobody's call;
the count passes over it.

`Lane` decides; it never sleeps, sends or reads a clock.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tinkex_proxy.core.coalesce import NOTHING, Decision, FlushReason, Item, Limits, Waiting, decide

__all__ = ["Batch", "Lane"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Items that leave together as one upstream request."""

    seq_id: int
    items: tuple[Item, ...]
    reason: FlushReason
    waited_s: float

    @property
    def datums(self) -> int:
        """How many datums the request holds."""
        return sum(item.datums for item in self.items)


class Lane:
    """FIFO of one model's calls.

    Args:
        limits: when to flush.
        next_seq: the first unused sequence number; the SDK's counter gives `create_model` 0.
    """

    def __init__(self, limits: Limits, *, next_seq: int = 1) -> None:
        self._limits = limits
        self._next_seq = next_seq
        self._queue: deque[Waiting] = deque()
        self._halves: deque[tuple[Waiting, ...]] = deque()
        self._on_wire: tuple[Batch, tuple[Waiting, ...]] | None = None
        self._owed = 0
        self._draining = False
        self._used: set[int] = set()

    @property
    def next_seq(self) -> int:
        """Number that the next submit takes (or the one on the wire has)."""
        return self._next_seq

    @property
    def depth(self) -> int:
        """Items that have not left."""
        return len(self._queue) + sum(map(len, self._halves))

    @property
    def owed(self) -> int:
        """Batches that were admitted and whose answer is not there yet."""
        return self._owed

    @property
    def on_wire(self) -> Batch | None:
        """The submit that the upstream has not answered yet."""
        return None if self._on_wire is None else self._on_wire[0]

    @property
    def oldest_since(self) -> float | None:
        """Moment at which the oldest waiting item came, or None."""
        waiting = self._halves[0][0] if self._halves else next(iter(self._queue), None)
        return None if waiting is None else waiting.since

    def set_limits(self, limits: Limits) -> None:
        """Use other limits from the next decision on."""
        self._limits = limits

    def add(self, item: Item, now: float) -> None:
        """Put a call behind all others."""
        self._queue.append(Waiting(item, now))

    def withdraw(self, item_id: int) -> bool:
        """Take a call out whose caller has left; False when it is gone already."""
        for waiting in self._queue:
            if waiting.item.id == item_id:
                self._queue.remove(waiting)
                return True
        for position, half in enumerate(self._halves):
            kept = tuple(w for w in half if w.item.id != item_id)
            if len(kept) < len(half):
                self._halves[position] = kept
                if not kept:
                    del self._halves[position]
                return True
        return False

    def drain(self) -> None:
        """Let nothing linger from here on."""
        self._draining = True

    def resume(self, *, owed: int, on_wire: bool) -> None:
        """Begin where an earlier run left off.

        Args:
            owed: batches that were admitted and whose answer is awaited.
            on_wire: whether the next number belongs to a submit that may have been sent. What it
                carried is its owner's to know: here it has no items.
        """
        self._owed = owed
        if on_wire:
            self._on_wire = (Batch(self._next_seq, (), FlushReason.RESUME, 0.0), ())

    def put_first(self, items: Sequence[Item], now: float) -> None:
        """Put calls before all others, each to leave by itself."""
        self._halves.extendleft((Waiting(item, now),) for item in reversed(items))

    def poll(self, now: float) -> Batch | None:
        """Give the batch that must be submitted now, or None; it is on the wire from here on."""
        if self._on_wire is not None:
            return None
        if self._halves:
            return self._leave(self._halves.popleft(), FlushReason.BISECT, now)
        decision = self._decide(now)
        if decision.reason is None:
            return None
        taken = tuple(self._queue.popleft() for _ in range(decision.take))
        return self._leave(taken, decision.reason, now)

    def ask_at(self, now: float) -> float | None:
        """When `poll` could next give a batch if nothing happens before, or None."""
        if self._on_wire is not None:
            return None
        if self._halves:
            return now
        decision = self._decide(now)
        return decision.ask_at if decision.reason is None else now

    def admitted(self) -> None:
        """The upstream took the submit on the wire: its number is used, its answer is owed."""
        self._off_wire()
        self._count()
        self._owed += 1

    def settled(self) -> None:
        """An owed answer came, good or bad."""
        self._owed -= 1

    def refused(self, *, bisect: bool) -> Sequence[Item]:
        """The upstream refused the submit on the wire and ran nothing: its number is free again.

        Args:
            bisect: whether one call may have spoilt it for the others.

        Returns:
            The items that are finally refused; the others go again, in halves, before all else.
        """
        batch, waiting = self._off_wire()
        if not bisect or len(waiting) == 1:
            return batch.items
        middle = len(waiting) // 2
        self._halves.extendleft((waiting[middle:], waiting[:middle]))
        return ()

    def outnumbered(self) -> None:
        """The number on the wire turns out to be used by an earlier submit of this lane.

        That submit went unanswered and was given up, yet the upstream had taken it. The batch goes
        again, before all else, under the next number.
        """
        _, waiting = self._off_wire()
        self._count()
        self._halves.appendleft(waiting)

    def use(self, number: int) -> None:
        """Pass over a number that a request of the driver's own has used."""
        self._used.add(number)

    @property
    def ahead(self) -> int:
        """The first number after the next one that is not used."""
        number = self._next_seq + 1
        while number in self._used:
            number += 1
        return number

    def close(self) -> Sequence[Item]:
        """Empty the queue; give what had not left."""
        left = [w.item for half in self._halves for w in half]
        left += [w.item for w in self._queue]
        self._halves.clear()
        self._queue.clear()
        return left

    def _count(self) -> None:
        """The next number is used."""
        self._next_seq = self.ahead
        self._used = {number for number in self._used if number > self._next_seq}

    def _decide(self, now: float) -> Decision:
        if not self._queue:
            return NOTHING
        return decide(
            self._queue, self._limits, now=now, busy=self._owed > 0, draining=self._draining
        )

    def _leave(self, taken: tuple[Waiting, ...], reason: FlushReason, now: float) -> Batch:
        items = tuple(w.item for w in taken)
        batch = Batch(self._next_seq, items, reason, now - taken[0].since)
        self._on_wire = (batch, taken)
        return batch

    def _off_wire(self) -> tuple[Batch, tuple[Waiting, ...]]:
        if self._on_wire is None:
            raise RuntimeError("no submit of this lane is on the wire")
        gone, self._on_wire = self._on_wire, None
        return gone
