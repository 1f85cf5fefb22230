"""How late the event loop is: how much later than asked for a timer fires.

Whatever runs on the loop holds up everybody else's call for as long. A timer that is set for a
moment fires when the loop comes to it, so how late it fires is what a request that arrived at that
moment would have waited. Two looks a second cost nothing, and as they fall at random among the
work, their distribution is what callers meet: a loop that is held up for 50 ms once a second is 50
ms late at most in one look of twenty.

uvloop's timers count whole milliseconds, so what is below one says nothing.
"""

from collections.abc import Callable
from typing import Final

from tinkex_proxy.runtime.clock import Clock

__all__ = ["INTERVAL_S", "LoopLag"]

INTERVAL_S: Final = 0.5


class LoopLag:
    """Looks again and again, while it is started.

    Args:
        clock: sets the timer and measures.
        observe: told how late it was, in seconds.
    """

    def __init__(self, clock: Clock, observe: Callable[[float], object]) -> None:
        self._clock = clock
        self._observe = observe
        self._due = 0.0
        self._call_off: Callable[[], None] | None = None

    def start(self) -> None:
        """Look when an interval has passed."""
        self._due = self._clock.now() + INTERVAL_S
        self._call_off = self._clock.call_later(INTERVAL_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._call_off is not None:
            self._call_off()
            self._call_off = None

    def _look(self) -> None:
        self._observe(max(0.0, self._clock.now() - self._due))
        self.start()
