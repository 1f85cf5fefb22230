"""How many repetitions one key may send: a share of its requests, and a few in any case.

Backing off spreads repetitions, it does not bound them: when everything fails, every caller's
repetitions come on top of every caller's requests, and an upstream that could have come back is
held down. So, as in Finagle and linkerd (20 %, 10 a second, over 10 s), the last ten seconds may
hold no more repetitions than a fifth of the requests begun in them, and ten a second on top, so
that a key with little traffic may repeat at all. Both age out together: a request older than the
window earns nothing, a repetition older than it costs nothing.

The window is a ring of ten slots: exact to a second. A slot is emptied once all of it is older than
the window, so a repetition is never forgotten too early.

Reads no clock: `now` is passed in, in seconds of a monotonic clock. What is done when the budget is
spent is not decided here but in `core.retry`.
"""

from typing import Final

__all__ = ["RetryBudget"]

SLOTS: Final = 10


class RetryBudget:
    """The repetitions of one key.

    Args:
        ratio: repetitions for each request, from 0 to 1.
        per_s: repetitions a second on top, above 0: some work waits for budget, and must get it.
        window_s: the time over which both are counted.
    """

    def __init__(self, ratio: float = 0.2, per_s: float = 10.0, window_s: float = 10.0) -> None:
        self._ratio = ratio
        self._reserve = max(1.0, per_s * window_s)
        self._slot_s = window_s / SLOTS
        # One slot more than the window: the newest is still filling.
        self._slots = [[0, 0] for _ in range(SLOTS + 1)]
        self._requests = self._repetitions = 0
        self._newest = 0

    def begun(self, now: float) -> None:
        """Count a request, which is no repetition."""
        self._pass(now)
        self._slots[self._newest % (SLOTS + 1)][0] += 1
        self._requests += 1

    def take(self, now: float) -> bool:
        """Take leave for one repetition; False, and nothing is taken, when the budget is spent."""
        if self.remaining(now) < 1:
            return False
        self._slots[self._newest % (SLOTS + 1)][1] += 1
        self._repetitions += 1
        return True

    def remaining(self, now: float) -> int:
        """How many repetitions could go now."""
        self._pass(now)
        return max(0, int(self._reserve + self._ratio * self._requests - self._repetitions))

    def wait_s(self, now: float) -> float:
        """Seconds until there may be more: until the next slot ages out."""
        return (now // self._slot_s + 1) * self._slot_s - now

    def _pass(self, now: float) -> None:
        """Empty the slots that time has passed over since the newest one."""
        newest = int(now // self._slot_s)
        if newest <= self._newest:
            return
        for number in range(max(self._newest + 1, newest - SLOTS), newest + 1):
            slot = self._slots[number % (SLOTS + 1)]
            self._requests -= slot[0]
            self._repetitions -= slot[1]
            slot[:] = (0, 0)
        self._newest = newest
