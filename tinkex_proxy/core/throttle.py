"""How many submits of one key may be out at once, and from when, as the upstream's 429s tell.

An upstream that answers 429 (or 402, a pause in billing) speaks about the key, not about one
request: asking on under the same key costs it as much as the request it refused. So the first such
answer holds back **every** submit of the key until the moment it names, and halves how many may be
out at once; each one that is admitted afterwards lets one more go for as many as there are
(additive increase, multiplicative decrease: Jacobson's rule for a shared link).

A burst is refused as a burst: of all refusals that were sent before the key began to hold back, the
first counts and the others say nothing new.

`Throttle` decides; it reads no clock and waits for nobody. Polls are not counted: they ask about
work that is admitted.
"""

__all__ = ["Throttle"]


class Throttle:
    """The pace of one key.

    Args:
        most: submits that may be out at once while nothing is refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._out = 0
        self._not_before: float | None = None
        self._refused_at: float | None = None
        self._to_hold_s = 0.0

    @property
    def out(self) -> int:
        """Submits that are out."""
        return self._out

    @property
    def limit(self) -> int:
        """How many may be out at once."""
        return max(1, int(self._limit))

    def held_until(self, now: float) -> float | None:
        """The moment from which submits may go again, or None when that is now."""
        if self._not_before is None or now >= self._not_before:
            return None
        return self._not_before

    def held_s(self, now: float) -> float:
        """For how many seconds submits have been held back so far, in all."""
        return self._to_hold_s - max(0.0, (self._not_before or now) - now)

    def may_go(self, now: float) -> bool:
        """Whether one more may go."""
        if self._not_before is not None and now < self._not_before:
            return False
        return self._out + 1 <= self._limit or not self._out

    def went(self) -> None:
        """One has gone."""
        self._out += 1

    def ended(self) -> None:
        """One that had gone was answered, or will not be."""
        self._out -= 1

    def admitted(self) -> bool:
        """The upstream took one; whether more may be out at once for it."""
        if self._limit >= self._most:
            return False
        self._limit = min(float(self._most), self._limit + 1 / self._limit)
        return True

    def refused(self, *, sent_at: float, now: float, wait_s: float) -> None:
        """The upstream asked to slow down.

        Args:
            sent_at: when the request that it refused had gone.
            now: the moment of its answer.
            wait_s: seconds that it asks to wait.
        """
        held_until = max(self._not_before or now, now)
        self._not_before = max(held_until, now + wait_s)
        self._to_hold_s += self._not_before - held_until
        if self._refused_at is None or sent_at >= self._refused_at:
            self._limit = max(1.0, min(self._limit, self._out) / 2)
            self._refused_at = now
