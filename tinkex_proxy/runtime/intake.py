"""Taking calls on, within the bounds of `core.admission`, and shedding the others.

Who comes gets a `Hold`: it grows while the body comes, counts once the call is taken on, and is
given up when the call has ended, whichever way. What does not fit raises `Overloaded`, which names
the bound, its setting and what helps; nothing has been placed then, and no breaker hears of it.
"""

import asyncio
from collections import Counter
from types import TracebackType
from typing import NoReturn, Self

from tinkex_proxy.core.admission import Admission, Bound, Bounds, Usage
from tinkex_proxy.errors import Overloaded
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import Note, Shed
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.ledger import Answer

__all__ = ["Hold", "Intake"]

# Room comes with every call that ends; who asks more often than that only burdens the proxy.
RETRY_AFTER_S = 1.0
# Shedding comes in thousands; one line for each bound and stretch of time tells as much.
QUIET_S = 10.0


class Intake:
    """What is taken on.

    Args:
        bounds: how much.
        clock: paces the log.
        hub: told of everything that is shed.
    """

    def __init__(self, bounds: Bounds, *, clock: Clock, hub: Hub) -> None:
        self.admission = Admission(bounds)
        self.shed: Counter[Bound] = Counter()
        self._clock = clock
        self._hub = hub
        self._quiet_until: dict[Bound, float] = {}

    @property
    def usage(self) -> Usage:
        """What is held over all."""
        return self.admission.total

    def hold(self, owner: str, *, exempt: bool = False, owed: bool = False) -> "Hold":
        """A place for a call that comes; it holds nothing yet.

        Args:
            owner: the key id of its caller.
            exempt: whether it is neither counted nor shed.
            owed: whether it is counted, and not shed: an earlier run has taken it on.
        """
        return Hold(self, owner, exempt=exempt, owed=owed)

    def take(self, owner: str, size: int) -> None:
        """Take on a call that has come whole; `give_back` must follow.

        Args:
            owner: the key id of its caller.
            size: how many bytes it holds.

        Raises:
            Overloaded: there is no room for it.
        """
        bound = self.admission.whole(owner, size)
        if bound is not None:
            self.turn_away(bound)

    def give_back(self, owner: str, size: int) -> None:
        """Note that such a call has ended."""
        self.admission.give_back(owner, size, 1)

    def reconfigure(self, bounds: Bounds) -> None:
        """Take on by these bounds from the next call on; who has a place keeps it."""
        self.admission.bounds = bounds

    def turn_away(self, bound: Bound) -> NoReturn:
        """Refuse a call, because something is used up.

        Raises:
            Overloaded: always.
        """
        self.shed[bound] += 1
        self._hub.tell(Shed(bound.value))
        error = Overloaded(self._told(bound), retry_after_s=RETRY_AFTER_S)
        now = self._clock.now()
        if now >= self._quiet_until.get(bound, now):
            self._quiet_until[bound] = now + QUIET_S
            self._hub.tell(Note("warning", f"calls are shed: {error}"))
        raise error

    def snapshot(self) -> dict[str, object]:
        """What `GET /lanes` shows."""
        bounds = self.admission.bounds
        return {
            "bytes_held": self.usage.size_bytes,
            "max_bytes": bounds.max_bytes,
            "calls_in_flight": self.usage.calls,
            "max_calls": bounds.max_calls,
            "max_lane_depth": bounds.max_lane_depth,
            "shed": {bound.value: self.shed[bound] for bound in Bound},
        }

    def snapshot_of(self, owner: str) -> dict[str, object]:
        """What `GET /lanes` shows of one key."""
        usage = self.admission.of(owner)
        return {"bytes_held": usage.size_bytes, "calls_in_flight": usage.calls}

    def _told(self, bound: Bound) -> str:
        bounds, usage = self.admission.bounds, self.usage
        match bound:
            case Bound.BYTES:
                return (
                    f"The calls that the proxy has taken on hold {usage.size_bytes} bytes, and "
                    f"this one does not fit beside them (admission.max_bytes {bounds.max_bytes}). "
                    "Nothing was sent; come again. If it lasts, send smaller calls or fewer at "
                    "once, or raise that setting."
                )
            case Bound.CALLS:
                return (
                    f"{usage.calls} calls are in flight, as many as the proxy takes on "
                    f"(admission.max_calls {bounds.max_calls}). Nothing was sent; come again. If "
                    "it lasts, send fewer at once, or raise that setting."
                )
            case Bound.LANE:
                return (
                    "As many calls wait for this model as may (admission.max_lane_depth "
                    f"{bounds.max_lane_depth}). Nothing was sent; come again when some are "
                    "answered. If it lasts, wait for answers before you send more, or raise that "
                    "setting."
                )


class Hold:
    """What one call holds. As a context it is given up at the end, unless a task has taken it over.

    Args:
        intake: that counts it.
        owner: the key id of its caller.
        exempt: whether nothing of it is counted.
        owed: whether nothing of it is shed.
    """

    def __init__(self, intake: Intake, owner: str, *, exempt: bool, owed: bool) -> None:
        self.exempt = exempt
        self._owed = owed
        self._intake = intake
        self._owner = owner
        self._size = 0
        self._counted = False
        self._handed_over = False

    def __enter__(self) -> Self:
        """Hold."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give everything up, unless it is somebody else's now."""
        if not self._handed_over:
            self.give_up()

    def grow(self, size: int, *, early: bool = False) -> None:
        """Hold `size` bytes over all; fewer than are held already change nothing.

        Args:
            size: how many.
            early: whether the call will wait for another that has not come.

        Raises:
            Overloaded: they do not fit.
        """
        more = size - self._size
        if more > 0 or early:
            self.add(max(0, more), early=early)

    def add(self, more: int, *, early: bool = False, owed: bool = False) -> None:
        """Hold so many bytes more.

        Args:
            more: how many.
            early: whether the call will wait for another that has not come.
            owed: whether this much was taken on before.

        Raises:
            Overloaded: they do not fit.
        """
        if self.exempt:
            return
        admission, owed = self._intake.admission, owed or self._owed
        bound = admission.hold(self._owner, more, own=self._size, early=early, owed=owed)
        if bound is not None:
            self._intake.turn_away(bound)
        self._size += more

    def count(self, *, awaited: bool = False) -> None:
        """Count as a call in flight; once, however often asked.

        Args:
            awaited: whether others that were taken on wait for this one.

        Raises:
            Overloaded: there are too many.
        """
        if not self._counted and not self.exempt:
            bound = self._intake.admission.call(self._owner, awaited=awaited or self._owed)
            if bound is not None:
                self._intake.turn_away(bound)
            self._counted = True

    def take(self, size: int) -> None:
        """Hold a call that has come whole, all of it, and count it.

        Raises:
            Overloaded: there is no room for it.
        """
        self._intake.take(self._owner, size)
        self._size, self._counted = size, True

    def queue(self, depth: int, *, awaited: bool = False) -> None:
        """Make sure that the call may queue on a lane for which `depth` wait.

        Raises:
            Overloaded: it is full.
        """
        bound = self._intake.admission.queue(depth, awaited=awaited or self._owed)
        if bound is not None:
            self._intake.turn_away(bound)

    def until(self, task: "asyncio.Future[Answer]") -> None:
        """Leave what is held to a task, until that has ended."""
        self.hand_over()
        task.add_done_callback(lambda _: self.give_up())

    def hand_over(self) -> None:
        """Leave it to others to give up what is held."""
        self._handed_over = True

    def give_up(self) -> None:
        """Hold nothing any more."""
        self._intake.admission.give_back(self._owner, self._size, int(self._counted))
        self._size, self._counted = 0, False
