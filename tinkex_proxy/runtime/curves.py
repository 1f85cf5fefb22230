"""Losses of models as curves: bounded in models and in points, and never cut at their beginning."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["Curve", "Curves", "Point"]

# More lines than these nobody tells apart.
MAX_MODELS: Final = 32
# More points than a chart has pixels show nothing more.
MAX_POINTS: Final = 400


class Point(NamedTuple):
    """The mean loss of one call, or of several in a row."""

    slot: int
    at: float
    loss: float


@dataclass(slots=True)
class Curve:
    """The losses of one model.

    Attributes:
        points: oldest first.
        calls: how many there were.
        each: how many of them a point is the mean of.
        rewritten: the slot in which the points became others; -1: never.
    """

    points: list[Point] = field(default_factory=list)
    calls: int = 0
    each: int = 1
    rewritten: int = -1
    _open: list[float] = field(default_factory=list)

    def add(self, slot: int, at: float, loss: float) -> None:
        """Take one loss."""
        self.calls += 1
        self._open.append(loss)
        if len(self._open) < self.each:
            return
        mean = sum(self._open) / len(self._open)
        self._open.clear()
        self.points.append(Point(slot, at, mean))
        if len(self.points) > MAX_POINTS:
            self._thin(slot)

    def _thin(self, slot: int) -> None:
        """Make one point of two; an odd last one is taken up into the next."""
        pairs = zip(self.points[::2], self.points[1::2], strict=False)
        odd = self.points[-1] if len(self.points) % 2 else None
        self.points = [Point(b.slot, b.at, (a.loss + b.loss) / 2) for a, b in pairs]
        self._open = [] if odd is None else [odd.loss] * self.each
        self.each *= 2
        self.rewritten = slot


class Curves:
    """The losses of the models that trained last."""

    def __init__(self) -> None:
        self._curves: dict[str, Curve] = {}

    def add(self, model_id: str, slot: int, at: float, loss: float) -> None:
        """Take one loss of a model."""
        curve = self._curves.pop(model_id, None) or Curve()
        self._curves[model_id] = curve  # the one that trained last is last
        while len(self._curves) > MAX_MODELS:
            del self._curves[next(iter(self._curves))]
        curve.add(slot, at, loss)

    def told(self, after: int = 0) -> list[dict[str, object]]:
        """Every model's curve from a slot on; all of it (`whole`) where it has been thinned since.

        A reader that finds a model missing forgets it.
        """
        shown: list[dict[str, object]] = []
        for model_id, curve in sorted(self._curves.items()):
            whole = curve.rewritten >= after or after == 0
            points = [p for p in curve.points if whole or p.slot >= after]
            rows = [(p.slot, round(p.at, 3), float(f"{p.loss:.6g}")) for p in points]
            shown.append(
                {"model_id": model_id, "calls": curve.calls, "whole": whole, "points": rows}
            )
        return shown
