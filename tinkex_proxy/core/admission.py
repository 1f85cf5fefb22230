"""What the proxy takes on at once, and what it sheds: bytes, calls, the depth of a lane.

A process beside a training job must not be what fills the machine. So three things have a bound,
and whoever comes beyond it is told at once to come again, which costs nothing, while those that
were taken on go on undisturbed:

* **bytes** that calls hold, from the moment a body is announced (a promise: of four bodies of which
  each half would fit, two come whole, instead of four halves) until the call has ended;
* **calls** that were taken on and have not ended. Long polls and heartbeats are none: a poll holds
  a connection and asks for what is counted already, and refusing either loses work or models;
* the **depth** of a lane, that is, what one model's callers have queued.

Three rules keep a bound from becoming a trap:

* A call that holds bytes alone is never shed for them, whatever its size: the limit of a single
  body is another's business, and a bound that a call can never meet would make it come for ever.
* An SDK sends the pieces of a large call at once and the first one last. The pieces that came early
  wait for that one, so the one is taken on although calls or depth are used up (they stay bounded:
  it sets free at least one that waits).
* Bytes have to be promised before anybody has read which piece is coming. So early pieces may fill
  only a part of them; the rest is left to calls that do not wait for another, which end by
  themselves.

`Admission` decides and keeps count; it reads no clock and holds no bytes.
"""

import enum
from dataclasses import dataclass

__all__ = ["Admission", "Bound", "Bounds", "Usage"]

# What early pieces leave of the bytes for the one that they wait for, and for everybody else.
EARLY_SHARE = 0.75


class Bound(enum.Enum):
    """Why a call is shed."""

    BYTES = "bytes"
    CALLS = "calls"
    LANE = "lane"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is taken on.

    Attributes:
        max_bytes: bytes that calls may hold together.
        max_calls: calls that may be in flight together.
        max_lane_depth: calls that may wait on, or on their way to, one lane.
    """

    max_bytes: int = 256 * 1024 * 1024
    max_calls: int = 10_000
    max_lane_depth: int = 5_000


@dataclass(slots=True)
class Usage:
    """What is held: bytes, and calls in flight."""

    size_bytes: int = 0
    calls: int = 0


class Admission:
    """The count of what is held, over all and by owner.

    Args:
        bounds: how much is taken on; may be replaced at any time, what is held stays.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.total = Usage()
        self._owners: dict[str, Usage] = {}

    def of(self, owner: str) -> Usage:
        """What one owner holds."""
        return self._owners.get(owner, Usage())

    def hold(
        self, owner: str, more: int, *, own: int = 0, early: bool = False, owed: bool = False
    ) -> Bound | None:
        """Let a call hold more bytes, or say why not.

        Args:
            owner: whose call.
            more: how many bytes more.
            own: how many it holds already.
            early: whether it will wait for another that has not come.
            owed: whether it was taken on before (by an earlier run), and may not be shed any more.
        """
        limit = self.bounds.max_bytes
        if early:
            limit = int(limit * EARLY_SHARE)
        alone = self.total.size_bytes == own and not early
        if self.total.size_bytes + more > limit and not (alone or owed):
            return Bound.BYTES
        self._take(owner, more, 0)
        return None

    def call(self, owner: str, *, awaited: bool = False) -> Bound | None:
        """Take a call on, or say why not.

        Args:
            owner: whose.
            awaited: whether others that were taken on wait for it, or it was taken on before.
        """
        if self.total.calls >= self.bounds.max_calls and not awaited:
            return Bound.CALLS
        self._take(owner, 0, 1)
        return None

    def whole(self, owner: str, size_bytes: int) -> Bound | None:
        """Take a call on that has come whole, with all that it holds; or say why not."""
        bounds, held = self.bounds, self.total
        if held.calls >= bounds.max_calls:
            return Bound.CALLS
        # One that holds bytes alone is never shed for them.
        if size_bytes and held.size_bytes and held.size_bytes + size_bytes > bounds.max_bytes:
            return Bound.BYTES
        self._take(owner, size_bytes, 1)
        return None

    def queue(self, depth: int, *, awaited: bool = False) -> Bound | None:
        """Whether a call may queue on a lane, or why not.

        The parts of one call may pass the bound: a call of more parts than that must have a way.

        Args:
            depth: how many wait for that lane.
            awaited: whether some of them wait for this one, or it was taken on before.
        """
        full = depth >= self.bounds.max_lane_depth and not awaited
        return Bound.LANE if full else None

    def give_back(self, owner: str, size_bytes: int, calls: int) -> None:
        """Note that a call holds nothing any more."""
        usage = self._take(owner, -size_bytes, -calls)
        if not usage.size_bytes and not usage.calls:
            del self._owners[owner]

    def _take(self, owner: str, size_bytes: int, calls: int) -> Usage:
        total, usage = self.total, self._owners.get(owner)
        if usage is None:
            usage = self._owners[owner] = Usage()
        total.size_bytes += size_bytes
        total.calls += calls
        usage.size_bytes += size_bytes
        usage.calls += calls
        return usage
