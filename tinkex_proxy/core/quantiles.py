"""P50, P95 and P99 of many values in little memory: a DDSketch (Masson, Rim, Lee: VLDB 2019).

A value is counted in the bin of its logarithm. Bins grow by a factor of (1 + a) / (1 - a), so that
the middle of a bin is off by a = 1 % at the most from everything in it, and so is every quantile,
whatever the distribution. The last thousand values, which is what is often kept instead, put the
P99 off by up to a fifth; fixed buckets that end at 10 s put that of an 18 s call off by nine
tenths.

* **Few values are exact.** Up to `EXACT` values are kept as they are; beyond, they are in bins.
* **Ranks.** P95 and P99 are the value of the nearest rank, `ceil(n * p / 100)`; P50 of an even
  number is the mean of the two in the middle.
* **Bounded.** There are at most `max_bins` bins; values that range wider share the lowest one, and
  the high quantiles, which are what is asked for, stay right. 1,000 bins reach over a factor of
  480 million, from 10 us to more than an hour. A bin is counted in two bytes until it overflows
  them, then in four, then in eight.
* **Recent.** What a histogram has seen is in three sketches: this minute's, the last minute's, and
  that of all before. A value is recorded in the first only; who reads merges. So `recent` is about
  the last one to two minutes, and `total` about everything.

Why not the package `ddsketch`: its bins are Python floats (32 kB for a thousand), it keeps no exact
values, an update takes twice as long, and its last release is from 2024.

Values are finite and not negative (durations, sizes); what is below 1e-9 counts as 0.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Final

__all__ = ["ACCURACY", "EXACT", "Histogram", "Quantiles", "Sketch"]

# The relative error of a quantile.
ACCURACY: Final = 0.01
# Values kept as they are: enough for the numbers of a small test or a short run.
EXACT: Final = 64
# Time after which a minute's sketch gives way to the next.
MINUTE_S: Final = 60.0

_GAMMA: Final = (1 + ACCURACY) / (1 - ACCURACY)
_PER_LOG: Final = 1 / log(_GAMMA)
_LEAST: Final = 1e-9
# Bins are made so many at a time.
_STEP: Final = 32
_WIDER: Final = {"H": "I", "I": "Q"}


@dataclass(frozen=True, slots=True)
class Quantiles:
    """What a sketch says; all but the count are None while it is empty."""

    count: int
    mean: float | None = None
    min: float | None = None
    max: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Sketch:
    """Values, exact while few and in bins of 1 % beyond.

    Args:
        max_bins: most bins.

    Attributes:
        count: how many values.
        sum: what they add up to.
        min: the least.
        max: the greatest.
        few: the values themselves, while they are few.
        zeros: values in bins that are next to nothing.
    """

    __slots__ = ("_bins", "_first", "count", "few", "max", "max_bins", "min", "sum", "zeros")

    def __init__(self, max_bins: int) -> None:
        self.max_bins = max_bins
        self.count = 0
        self.sum = 0.0
        self.min = math.inf
        self.max = 0.0
        self.few: list[float] | None = []
        self.zeros = 0
        self._first = 0  # the key of the first bin
        self._bins = array("H")

    def add(self, value: float) -> None:
        """Count one value.

        Raises:
            ValueError: it is negative, infinite or no number; nothing has been counted.
        """
        if not 0 <= value < math.inf:
            raise ValueError(f"{value} cannot be counted: it has to be finite and not negative")
        self.count += 1
        self.sum += value
        if value < self.min:  # noqa: PLR1730 - hot path
            self.min = value
        if value > self.max:  # noqa: PLR1730
            self.max = value
        if self.few is not None:
            self._keep(value, self.few)
            return
        if value < _LEAST:
            self.zeros += 1
            return
        at = ceil(log(value) * _PER_LOG) - self._first
        if at < 0:
            self._put(at + self._first, 1)
            return
        try:
            self._bins[at] += 1
        except (IndexError, OverflowError):
            self._put(at + self._first, 1)

    def add_all(self, values: Sequence[float]) -> None:
        """Count some values, for less than one by one.

        Raises:
            ValueError: one is negative, infinite or no number; nothing has been counted.
        """
        if not values:
            return
        total, least = sum(values), min(values)
        if not (least >= 0 and total < math.inf):  # a sum with what is no number is none
            raise ValueError("What is counted has to be finite and not negative.")
        self.count += len(values)
        self.sum += total
        self.min = min(self.min, least)
        self.max = max(self.max, *values)
        if self.few is not None:
            self.few += values
            if self.count > EXACT:
                self._spill()
        else:
            self._bin(values)

    def merge(self, other: "Sketch") -> None:
        """Count everything that another has counted."""
        self.count += other.count
        self.sum += other.sum
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)
        if self.few is not None and other.few is not None:
            self.few += other.few
            if self.count > EXACT:
                self._spill()
            return
        self._spill()
        if other.few is not None:
            self._bin(other.few)
            return
        self.zeros += other.zeros
        for key, times in other.bins():
            self._put(key, times)

    def bins(self) -> Iterator[tuple[int, int]]:
        """Every bin that is not empty: its key, and how often it was counted.

        From the top, so that what has to share a lowest bin does so once.
        """
        for at in range(len(self._bins) - 1, -1, -1):
            if self._bins[at]:
                yield self._first + at, self._bins[at]

    def quantiles(self) -> Quantiles:
        """All that is told of the values."""
        n = self.count
        if n == 0:
            return Quantiles(0)
        half = ceil(n / 2)
        # Ranks from 1, rising: the two in the middle (one twice, of an odd number), and the others.
        ranks = [half, half if n % 2 else half + 1, -(-n * 95 // 100), -(-n * 99 // 100)]
        lower, upper, p95, p99 = self._at(ranks)
        return Quantiles(n, self.sum / n, self.min, self.max, (lower + upper) / 2, p95, p99)

    def _at(self, ranks: list[int]) -> list[float]:
        """The values of some ranks, which rise."""
        if self.few is not None:
            ordered = sorted(self.few)
            return [ordered[rank - 1] for rank in ranks]
        found: list[float] = []
        below, at = self.zeros, -1
        for rank in ranks:
            while below < rank:
                at += 1
                below += self._bins[at]
            middle = 0.0 if at < 0 else 2 * _GAMMA ** (self._first + at) / (_GAMMA + 1)
            found.append(min(max(middle, self.min), self.max))
        return found

    def _keep(self, value: float, few: list[float]) -> None:
        few.append(value)
        if self.count > EXACT:
            self._spill()

    def _spill(self) -> None:
        few, self.few = self.few or [], None
        self._bin(few)

    def _bin(self, values: Iterable[float]) -> None:
        bins, first = self._bins, self._first
        for value in values:
            if value < _LEAST:
                self.zeros += 1
                continue
            at = ceil(log(value) * _PER_LOG) - first
            try:
                if at >= 0:
                    bins[at] += 1
                    continue
            except (IndexError, OverflowError):
                pass
            self._put(at + first, 1)
            bins, first = self._bins, self._first

    def _put(self, key: int, times: int) -> None:
        at = key - self._first
        if not 0 <= at < len(self._bins):
            at = self._reach(key)
        try:
            self._bins[at] += times
        except OverflowError:
            while times + self._bins[at] >= 1 << 8 * self._bins.itemsize:
                self._bins = array(_WIDER[self._bins.typecode], self._bins)
            self._bins[at] += times

    def _reach(self, key: int) -> int:
        """Make bins up to a key, and give the place where it is to be counted."""
        bins = self._bins
        if not bins:
            self._first = key
        last = max(key, self._first + len(bins) - 1)
        # Spare bins only where there is something beside them, and never at the cost of a bin.
        lowest = last - self.max_bins + 1
        if key < self._first:
            first = max(lowest, min(self._first, key - _STEP))
            if first == self._first:
                return 0
            bins = array(bins.typecode, bytes(bins.itemsize * (self._first - first))) + bins
        else:
            first = max(lowest, self._first)
            spare = min(_STEP, first + self.max_bins - 1 - last)
            grown = last + spare - (self._first + len(bins)) + 1
            bins = bins + array(bins.typecode, bytes(bins.itemsize * grown))
        dropped = max(0, first - self._first)
        lost = sum(bins[:dropped])
        self._bins, self._first = bins[dropped:], first
        if lost:
            self._put(first, lost)
        return max(0, key - first)


class Histogram:
    """A sketch of everything, and one of the last minutes.

    Args:
        max_bins: most bins of each sketch.
    """

    __slots__ = ("_before", "_ends", "_last", "_now", "max_bins")

    def __init__(self, max_bins: int) -> None:
        self.max_bins = max_bins
        self._before = Sketch(max_bins)
        self._last = Sketch(max_bins)
        self._now = Sketch(max_bins)
        self._ends = -math.inf

    def add(self, value: float, now: float) -> None:
        """Count one value at a moment of a monotonic clock.

        Raises:
            ValueError: it is negative, infinite or no number.
        """
        if now >= self._ends:
            self._turn(now)
        self._now.add(value)

    def add_all(self, values: Sequence[float], now: float) -> None:
        """Count some values of one moment, as `Sketch.add_all` does.

        Raises:
            ValueError: one is negative, infinite or no number; nothing has been counted.
        """
        if now >= self._ends:
            self._turn(now)
        self._now.add_all(values)

    def total(self) -> Quantiles:
        """All values ever counted."""
        return self._merged(self._before, self._last, self._now)

    def recent(self, now: float) -> Quantiles:
        """The values of this minute and the last."""
        if now >= self._ends:
            self._turn(now)
        return self._merged(self._last, self._now)

    def _merged(self, *sketches: Sketch) -> Quantiles:
        merged = Sketch(self.max_bins)
        for sketch in sketches:
            merged.merge(sketch)
        return merged.quantiles()

    def _turn(self, now: float) -> None:
        """Begin another minute; what is older than the last one is no longer recent."""
        idle = now >= self._ends + MINUTE_S
        self._before.merge(self._last)
        self._last = self._now
        self._now = Sketch(self.max_bins)
        self._ends = now + MINUTE_S
        if idle:
            self._before.merge(self._last)
            self._last = Sketch(self.max_bins)
