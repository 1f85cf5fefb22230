"""How far the upstream's clock is from ours, as the `Date` of its answers says.

A `Date` is in whole seconds, of which the middle is taken: what comes out is off by half a second,
and by the way that the answer took. Enough to see why tokens are refused or two logs do not fit
together. Nothing is decided by it.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from tinkex_proxy.runtime.events import Exchange
from tinkex_proxy.runtime.hub import ByKind

__all__ = ["Skew"]

# The one form that HTTP writes.
_DATE: Final = "%a, %d %b %Y %H:%M:%S GMT"


class Skew(ByKind):
    """Listens for the upstream's dates.

    Args:
        wall_clock: gives the time of day in seconds.

    Attributes:
        seconds: how far the upstream is ahead; None until it has told.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        self._date: str | None = None
        self.seconds: float | None = None
        super().__init__({Exchange: self._heard})

    def _heard(self, event: Exchange) -> None:
        """Of the answers of one second the first is enough."""
        if event.date is not None and event.date != self._date:
            self._date = event.date
            said = _seconds(event.date)
            if said is not None:
                self.seconds = said + 0.5 - self._wall_clock()


def _seconds(date: str) -> float | None:
    try:
        return datetime.strptime(date, _DATE).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
