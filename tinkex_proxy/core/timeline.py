"""Where a call's time went: one line of moments on one clock, cut into parts.

A timeline is in one part at a time; entering the next ends the one before, so the parts sum to the
whole by construction, whatever was forgotten or went wrong between. What is known only afterwards
(that the upstream had held a request back, that a batch had been lingering) is told with the moment
until which it was so.

A call that is done in several pieces, or in several calls, is split along its **critical path**:
the piece that ended last, as far back as it goes; before that, the one it waited for; and so on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = ["UPSTREAM", "Held", "Part", "Stretch", "Timeline"]


class Part(Enum):
    """What a call's time is spent on."""

    PROXY = "proxy"
    """The proxy at work: decoding, merging, splitting, encoding."""
    QUEUE = "queue"
    """Waiting in its lane for what is before it, or for leave to submit."""
    LINGER = "linger"
    """Waiting for company."""
    JOURNAL = "journal"
    """Waiting until the disk has what is to leave."""
    UPLOAD = "upload"
    """Until the upstream has taken it: what has to be asked first, repetitions, the submit."""
    UPSTREAM_QUEUE = "upstream-queue"
    """Until the upstream last said that it holds it back."""
    COMPUTE = "compute"
    """Until the head of the result came."""
    DOWNLOAD = "download"
    """Until the whole of it was there; of a small one that is at once."""

    # Every call counts by part, several times; the enumeration's own hash is worked out in Python.
    __hash__ = object.__hash__

    @property
    def upstream(self) -> bool:
        """Whether it is the upstream's time and not the proxy's."""
        return self in UPSTREAM


# The parts that are the upstream's time.
UPSTREAM = frozenset({Part.UPLOAD, Part.UPSTREAM_QUEUE, Part.COMPUTE, Part.DOWNLOAD})
# Every call is asked for its parts; going through the enumeration takes longer than the sum.
_NOTHING = dict.fromkeys(Part, 0.0)


@dataclass(frozen=True, slots=True)
class Held:
    """What the upstream said last when it held a request back."""

    state: str
    reason: str | None = None


class Stretch(NamedTuple):
    """A time spent on one thing."""

    part: Part
    since: float
    until: float


class Timeline:
    """The time of one call, or of one piece of it.

    Args:
        began: the moment it came, in seconds of some clock; all others are of the same clock.
        part: what it is in from then on.

    Attributes:
        last: the moment up to which its time is accounted for.
        part: what it has been in since.
        held: what the upstream said when it held it back, if it did.
    """

    __slots__ = ("_ended", "_parts", "_sums", "_untils", "began", "held", "last", "part")

    def __init__(self, began: float, part: Part = Part.PROXY) -> None:
        self.began = self.last = began
        self.part = part
        self.held: Held | None = None
        # What it was spent on, and until when; each since the one before it. Every call has a few
        # timelines, of which hardly any is ever looked at stretch by stretch.
        self._parts: list[Part] = []
        self._untils: list[float] = []
        self._sums: dict[Part, float] | None = None
        self._ended = False

    def enter(self, part: Part, now: float) -> None:
        """From `now` on it is in `part`; that may be known late, but not before what is known."""
        self.spent(self.part, now)
        self.part = part

    def spent(self, part: Part, until: float) -> None:
        """All since `last` was `part`, up to this moment; what it is in now stays."""
        if self._ended or until <= self.last:
            return
        self.last = until
        if self._parts and self._parts[-1] is part:
            self._untils[-1] = until
        else:
            self._parts.append(part)
            self._untils.append(until)

    def end(self, now: float) -> None:
        """It is over; nothing told later counts."""
        self.spent(self.part, now)
        self._ended = True

    def waited(self, part: Part, since: float, now: float) -> None:
        """Something was waited for from `since` on, all of it `part`; as `join` takes it in."""
        start = max(self.began, since)
        if self._ended or now <= self.last or now <= start:
            return
        if start > self.last:
            self.spent(self.part, start)
        elif start < self.last:
            self._cut(start)
        self.spent(part, now)

    def join(self, path: "Timeline", now: float, *, since: float | None = None) -> None:
        """Take in what was waited for: it is the critical path if it ended after all before it.

        Args:
            path: its time; up to `now` where it has not ended.
            now: the moment.
            since: when it began to be waited for, where it had begun before.
        """
        parts, untils = path.spans(now)
        start = max(path.began, self.began if since is None else since)
        if self._ended or not untils or untils[-1] <= max(self.last, start):
            return
        self.spent(self.part, start)
        self._cut(start)
        for part, until in zip(parts, untils, strict=True):
            self.spent(part, until)
        self.held = path.held or self.held

    def stretches(self, now: float | None = None) -> list[Stretch]:
        """Its time in order, without gaps.

        Args:
            now: up to which moment, where it has not ended; None: up to `last`.
        """
        parts, untils = self.spans(now)
        return list(map(Stretch, parts, [self.began, *untils], untils))

    def spans(self, now: float | None = None) -> tuple[list[Part], list[float]]:
        """The same as two lists, to look at: what it was spent on, and until when each."""
        if now is None or self._ended or now <= self.last:
            return self._parts, self._untils
        return [*self._parts, self.part], [*self._untils, now]

    @property
    def whole_s(self) -> float:
        """Seconds from its beginning to `last`."""
        return self.last - self.began

    def parts(self) -> Mapping[Part, float]:
        """Seconds of every part; they sum to `whole_s`."""
        return _NOTHING | self.sums()

    def sums(self) -> dict[Part, float]:
        """The same of those that it came to, most of which it does not."""
        if self._sums is not None:
            return self._sums
        seconds: dict[Part, float] = {}
        since = self.began
        for part, until in zip(self._parts, self._untils, strict=True):
            seconds[part] = seconds.get(part, 0.0) + until - since
            since = until
        if self._ended:  # several want to know then
            self._sums = seconds
        return seconds

    @property
    def overhead_s(self) -> float:
        """Seconds that are not the upstream's: the proxy's own work and waiting."""
        own = (s for s in self.stretches() if not s.part.upstream)
        return sum((s.until - s.since for s in own), 0.0)

    def _cut(self, at: float) -> None:
        """Forget what was after a moment."""
        untils = self._untils
        while untils and untils[-1] > at:
            if (untils[-2] if len(untils) > 1 else self.began) < at:
                untils[-1] = at
            else:
                untils.pop()
                self._parts.pop()
        self.last = min(self.last, at)
