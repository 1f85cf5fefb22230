"""When a closed circuit trips, beyond its count of failures in a row.

Three rules, any of which trips it:

* **in a row**: `failure_threshold` failures with no success between them. Quick to see an outage;
  blind to an upstream that fails most of the time but not all of it. The circuit counts these.
  The threshold may follow what is usual for the upstream (`core.baseline`); off unless asked for.
* **failure rate**: at least `failure_rate` of the calls of the last `window_s` seconds failed. It
  needs `minimum_calls` in the window, so that one failure of two calls trips nothing.
* **slow calls**: at least `slow_rate` of them took `slow_s` or longer. Off unless asked for: a
  training call may well take minutes.

Only a failure or a slow call can trip: a success never does, though it may complete the minimum.
What ended neither well nor badly is not in the window at all.
"""

from dataclasses import dataclass

from tinkex_proxy.core.baseline import Baseline
from tinkex_proxy.core.window import Counts, Window

__all__ = ["Trip", "TripSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TripSettings:
    """When to trip.

    Attributes:
        failure_threshold: failures in a row.
        failure_rate: share of failures in the window, above 0 and at most 1; None: not looked at.
        minimum_calls: calls the window must hold before either rate is looked at.
        window_s: length of the window.
        slow_s: a call that takes this long is slow; None: none is.
        slow_rate: share of slow calls in the window, above 0 and at most 1.
        adaptive: whether `failure_threshold` is that of an upstream that fails once in a hundred
            calls, and follows what is usual for this one.
    """

    failure_threshold: int = 5
    failure_rate: float | None = None
    minimum_calls: int = 20
    window_s: float = 60.0
    slow_s: float | None = None
    slow_rate: float = 0.8
    adaptive: bool = False


class Trip:
    """The rules of one circuit, and the window they look at.

    Attributes:
        minds_slow: whether slow calls count at all.
    """

    def __init__(self, settings: TripSettings) -> None:
        self._settings = settings
        self.minds_slow = settings.slow_s is not None
        self._window = Window(settings.window_s)
        self._rates = settings.failure_rate is not None or settings.slow_s is not None
        self._baseline = self._new_baseline()

    def reconfigure(self, settings: TripSettings) -> None:
        """Take other rules; the window's counts stay if it is as long as before."""
        before, self._settings = self._settings, settings
        self.minds_slow = settings.slow_s is not None
        self._rates = settings.failure_rate is not None or settings.slow_s is not None
        if settings.window_s != before.window_s:
            self._window = Window(settings.window_s)
        same = settings.failure_threshold == before.failure_threshold
        if not same or settings.adaptive is not before.adaptive:
            self._baseline = self._new_baseline()

    @property
    def threshold(self) -> int:
        """Failures in a row that trip."""
        if self._baseline is None:
            return self._settings.failure_threshold
        return self._baseline.threshold

    def is_slow(self, took_s: float) -> bool:
        """Whether a call that took this long was slow."""
        return self._settings.slow_s is not None and took_s >= self._settings.slow_s

    def count(self, now: float, *, failed: bool, slow: bool) -> None:
        """Take in one call that ended at `now`."""
        if self._baseline is not None:
            self._baseline.count(failed=failed)
        if self._rates:
            self._window.add(now, failed=failed, slow=slow)

    def counts(self, now: float) -> Counts:
        """What the window holds."""
        return self._window.counts(now)

    def reason(self, now: float) -> str | None:
        """Why the window trips the circuit, or None."""
        if not self._rates:
            return None
        chosen, (calls, failures, slow) = self._settings, self._window.counts(now)
        if calls < chosen.minimum_calls:
            return None
        if chosen.failure_rate is not None and failures >= chosen.failure_rate * calls:
            return f"{failures} of {calls} calls failed within {chosen.window_s:g} s"
        if chosen.slow_s is not None and slow >= chosen.slow_rate * calls:
            return (
                f"{slow} of {calls} calls took {chosen.slow_s:g} s or longer "
                f"within {chosen.window_s:g} s"
            )
        return None

    def closed(self, *, at_once: bool) -> None:
        """The circuit was closed by its probes, `at_once` by those after its first time open."""
        if self._baseline is not None:
            self._baseline.closed(at_once=at_once)

    def clear(self) -> None:
        """Forget the window; what is usual stays."""
        self._window.clear()

    def forget(self) -> None:
        """Forget everything."""
        self.clear()
        self._baseline = self._new_baseline()

    def _new_baseline(self) -> Baseline | None:
        return Baseline(self._settings.failure_threshold) if self._settings.adaptive else None
