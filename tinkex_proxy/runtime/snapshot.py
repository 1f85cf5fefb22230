"""Metrics to look at without a metrics server: counters, gauges, histograms, summaries, by name.

The verbs and their meaning are those of the API that this one succeeds. Every update is visible as
soon as its call returns: there is no buffer to flush. All of it happens on the event loop.

Memory is bounded whatever names are used: at most `MAX_NAMES` of at most `MAX_NAME_LENGTH`
characters, at most `MAX_SERIES` series of a summary, of which the one that was updated longest ago
gives way. What is refused is counted, and raises nothing: nobody's work fails for a metric.

Names that are *declared* are there before their first update, and after a reset. A gauge that is
*watched* is read when it is asked for, so it is right without updates, and a reset leaves it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final, TypeAlias

from tinkex_proxy.core.moments import Moments
from tinkex_proxy.core.quantiles import Histogram, Quantiles
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.series import Refused

__all__ = ["MAX_NAMES", "MAX_NAME_LENGTH", "MAX_SERIES", "SUMMARY_VALUES", "Snapshot"]

MAX_NAMES: Final = 256
MAX_NAME_LENGTH: Final = 200
# Models on one summary; with 100 values of 32 bytes each, some 300 kB.
MAX_SERIES: Final = 100
# Values over which a summary is taken: enough to see where a loss goes, few enough to follow it.
SUMMARY_VALUES: Final = 100

Shown: TypeAlias = dict[str, object]


class _Summary:
    """Moments over all series of a name, and of each."""

    def __init__(self) -> None:
        self.all = Moments(SUMMARY_VALUES)
        self.series: dict[str, Moments] = {}


class Snapshot:
    """All metrics of one proxy.

    Args:
        clock: tells what is recent.
        max_bins: most bins of a histogram's sketches.
        refused: counts updates that were refused for their names, or whose values no histogram can
            count.
    """

    def __init__(self, clock: Clock, *, max_bins: int, refused: Refused | None = None) -> None:
        self.refused = refused or Refused()
        self._clock = clock
        self._max_bins = max_bins
        self._kinds: dict[str, str] = {}
        self._declared: dict[str, str] = {}
        self._watched: dict[str, Callable[[], float]] = {}
        self._counters: dict[str, float] = {}
        self._gauges: dict[str, float] = {}
        self._histograms: dict[str, Histogram] = {}
        self._summaries: dict[str, _Summary] = {}

    def declare(self, name: str, kind: str) -> None:
        """Have a name be there always.

        Args:
            name: the name.
            kind: `counter`, `gauge`, `histogram` or `summary`.
        """
        self._declared[name] = kind
        self._begin(name, kind)

    def watch_gauge(self, name: str, read: Callable[[], float]) -> None:
        """Read a gauge whenever somebody looks."""
        self._declared[name] = self._kinds[name] = "gauge"
        self._watched[name] = read

    def increment(self, name: str, by: float = 1) -> None:
        """Add to a counter; the first time, to 0."""
        if name in self._counters or self._may_begin(name, "counter"):
            self._counters[name] += by

    def set_gauge(self, name: str, value: float) -> None:
        """Say how high a gauge stands."""
        if name in self._gauges or self._may_begin(name, "gauge"):
            self._gauges[name] = value

    def record_histogram(self, name: str, *values: float) -> None:
        """Count values, finite and not negative; others are refused."""
        histogram = self._histograms.get(name)
        if histogram is None:
            if not self._may_begin(name, "histogram"):
                return
            histogram = self._histograms[name]
        now = self._clock.now()
        try:
            histogram.add_all(values, now)
        except ValueError:
            self._record_one_by_one(histogram, values, now)

    def _record_one_by_one(self, histogram: Histogram, values: Sequence[float], now: float) -> None:
        for value in values:
            try:
                histogram.add(value, now)
            except ValueError:
                self.refused.count += 1

    def record_summary(self, name: str, value: float, series: str) -> None:
        """Take one value of a series, such as a model, into a summary."""
        if name not in self._summaries and not self._may_begin(name, "summary"):
            return
        summary = self._summaries[name]
        summary.all.add(value)
        moments = summary.series.pop(series, None)
        if moments is None:
            moments = Moments(SUMMARY_VALUES)
            if len(summary.series) >= MAX_SERIES:
                summary.series.pop(next(iter(summary.series)))
        moments.add(value)
        summary.series[series] = moments

    def get_snapshot(self, name: str) -> Shown | None:
        """One metric: its name, its type and what it says; None where there is none."""
        kind = self._kinds.get(name)
        if kind is None:
            return None
        said = self._said(name, kind)
        fields = said if isinstance(said, dict) else {"value": said}
        return {"name": name, "type": kind, **fields}

    def get_all_metrics(self) -> dict[str, dict[str, object]]:
        """All metrics: by kind, by name, what they say."""
        shown: dict[str, dict[str, object]] = {
            "counters": {},
            "gauges": {},
            "histograms": {},
            "summaries": {},
        }
        plural = dict(zip(("counter", "gauge", "histogram", "summary"), shown, strict=True))
        for name, kind in self._kinds.items():
            shown[plural[kind]][name] = self._said(name, kind)
        return shown

    def counted(self, name: str) -> float:
        """How far a counter is; 0 where there is none."""
        return self._counters.get(name, 0)

    def recent(self, name: str) -> Quantiles:
        """What a histogram has seen in the last one to two minutes."""
        histogram = self._histograms.get(name)
        return Quantiles(0) if histogram is None else histogram.recent(self._clock.now())

    def reset(self, name: str | None = None) -> list[str]:
        """Forget what was counted, of one name or of all; gives the names it was about."""
        names = list(self._kinds) if name is None else [name] if name in self._kinds else []
        for each in names:
            kind = self._kinds.pop(each)
            self._values(kind).pop(each, None)
            if each in self._watched:
                self._kinds[each] = kind
            elif each in self._declared:
                self._begin(each, kind)
        return names

    def _values(self, kind: str) -> dict[str, float] | dict[str, Histogram] | dict[str, _Summary]:
        match kind:
            case "counter":
                return self._counters
            case "gauge":
                return self._gauges
            case "histogram":
                return self._histograms
            case _:
                return self._summaries

    def _may_begin(self, name: str, kind: str) -> bool:
        """Begin a name that is new, unless it is taken, too long or one too many."""
        taken = name in self._kinds or len(name) > MAX_NAME_LENGTH
        if taken or len(self._kinds) >= MAX_NAMES:
            self.refused.count += 1
            return False
        self._begin(name, kind)
        return True

    def _begin(self, name: str, kind: str) -> None:
        self._kinds[name] = kind
        match kind:
            case "counter":
                self._counters[name] = 0
            case "gauge":
                self._gauges[name] = 0
            case "histogram":
                self._histograms[name] = Histogram(self._max_bins)
            case _:
                self._summaries[name] = _Summary()

    def _said(self, name: str, kind: str) -> object:
        match kind:
            case "counter":
                return self._counters[name]
            case "gauge":
                read = self._watched.get(name)
                return self._gauges[name] if read is None else read()
            case "histogram":
                total = self._histograms[name].total()
                return {**asdict(total), "recent": asdict(self.recent(name))}
            case _:
                summary = self._summaries[name]
                series = {each: _told(moments) for each, moments in summary.series.items()}
                return {**_told(summary.all), "series": series}


def _told(moments: Moments) -> Shown:
    return {
        "count": moments.count,
        "mean": moments.mean,
        "stddev": moments.stddev,
        "last": moments.last,
    }
