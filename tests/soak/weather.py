"""What goes wrong in a soak, and for how long: drawn from a seed, so that a soak can be repeated.

Every spell lasts a few seconds and holds up to three faults, or none. An outage is as long as its
spell. Sessions do not end here: an SDK's program would end with them (tests/faults/test_expiry.py).
"""

import random
from dataclasses import dataclass
from typing import Final

Fault = dict[str, object]

SHORTEST_S, LONGEST_S = 2.0, 5.0
CALM: Final = 0.2  # share of spells in which nothing goes wrong
OUTAGE: Final = 0.1  # share in which nothing works
MENU: Final[tuple[Fault, ...]] = (
    {"kind": "latency", "jitter_s": 0.05},
    {"kind": "error", "status": 503},
    {"kind": "error", "status": 500, "path": "submits"},
    {"kind": "error", "status": 502, "when": "after"},
    {"kind": "error", "status": 429, "retry_after_s": 0.2},
    {"kind": "reset"},
    {"kind": "reset", "when": "after"},
    {"kind": "reset", "when": "midway"},
    {"kind": "lost", "when": "before", "hold_s": 0.5},
    {"kind": "lost", "hold_s": 0.5},
    {"kind": "duplicate", "path": "submits"},
    {"kind": "duplicate", "path": "submits", "lag_s": 0.1},
    {"kind": "duplicate", "path": "polls"},
    {"kind": "slow", "bytes_per_s": 20_000, "body": "both"},
    {"kind": "paused", "hold_s": 0.2},
)
OUTAGES: Final[tuple[Fault, ...]] = (
    {"kind": "reset"},
    {"kind": "error", "status": 503},
    {"kind": "error", "status": 502, "when": "after"},
    {"kind": "lost", "when": "before"},
)


@dataclass(frozen=True)
class Spell:
    """What goes wrong for some time."""

    lasts_s: float
    faults: tuple[Fault, ...]


class Weather:
    """One spell after another.

    Args:
        seed: of the draws; the same seed gives the same weather.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)  # noqa: S311 - must repeat

    def next(self) -> Spell:
        """What comes now."""
        draw = self._draw
        lasts_s = round(draw.uniform(SHORTEST_S, LONGEST_S), 2)
        kind = draw.random()
        if kind < CALM:
            return Spell(lasts_s, ())
        if kind < CALM + OUTAGE:
            return Spell(lasts_s, (draw.choice(OUTAGES),))
        chosen = draw.sample(MENU, draw.randint(1, 3))
        return Spell(lasts_s, tuple({**one, "rate": _rate(one, draw)} for one in chosen))


def _rate(fault: Fault, draw: random.Random) -> float:
    """Silence costs seconds each time, so it is rarer than the rest."""
    return round(draw.uniform(0.01, 0.05 if fault["kind"] == "lost" else 0.25), 3)
