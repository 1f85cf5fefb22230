"""What turns come to: medians, and ratios that are taken within a round before their median is."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from tests.bench.compare.rounds import Seen, Turn


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and what it lies between."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of what was measured."""
        return cls(statistics.median(values), min(values), max(values))

    def said(self, digits: int, unit: str = "") -> str:
        """As tables have it; where all are the same, once."""
        low, median, high = (f"{v:,.{digits}f}" for v in (self.low, self.median, self.high))
        return f"{median}{unit}" if low == high else f"{median}{unit} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class Place:
    """Whose turns: under which load, and whose."""

    load: str
    name: str


class Figures:
    """What was measured, by place."""

    def __init__(self, seen: Seen) -> None:
        self._turns: dict[Place, list[Turn]] = {}
        for turn in seen.turns:
            self._turns.setdefault(Place(turn.load, turn.name), []).append(turn)
        self._peaks = {Place(peak.load, peak.name): peak.mib for peak in seen.peaks}

    def names(self, load: str) -> list[str]:
        """Who took part under a load, in the order in which they are listed."""
        return [place.name for place in self._turns if place.load == load]

    def has(self, *places: Place) -> bool:
        """Whether all of these were measured."""
        return all(place in self._turns for place in places)

    def spread(self, place: Place, figure: str) -> Spread:
        """One figure of a place's turns; `figure` is an attribute of `Turn`."""
        return Spread.of([attrgetter(figure)(turn) for turn in self._turns[place]])

    def ratio(self, over: Place, under: Place, figure: str, under_figure: str = "") -> Spread:
        """One place's figure by another's, round by round."""
        named = attrgetter(under_figure or figure)
        divisors = {turn.round: named(turn) for turn in self._turns[under]}
        ratios = [
            attrgetter(figure)(turn) / divisors[turn.round]
            for turn in self._turns[over]
            if divisors.get(turn.round)
        ]
        return Spread.of(ratios or [float("inf")])

    def errors(self, place: Place) -> int:
        """In all turns together."""
        return sum(turn.errors for turn in self._turns[place])

    def peak_mib(self, place: Place) -> float:
        """The most memory that was resident."""
        return self._peaks[place]
