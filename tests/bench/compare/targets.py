"""What was aimed at, beside what was measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.compare.calls import LARGE_BYTES
from tests.bench.compare.contestants import (
    DIRECT,
    FLOOR_PROXY,
    LITELLM_NAME,
    NAIVE,
    NGINX_LARGE,
    NGINX_NAME,
    OUR_SAMPLE,
    OUR_TRAINING,
    OURS,
)
from tests.bench.compare.figures import Figures, Place
from tests.bench.compare.held import CALLS, Held

ONE, FEW, MANY, LARGE = "c=1", "c=16", "c=2000", "5 MB c=4"
HELD_KIB, ADDED_MS = 50.0, 0.3
# Resident with nothing in flight, and four bodies.
LARGE_MIB = 80 + 4 * LARGE_BYTES / 2**20


@dataclass(frozen=True, slots=True)
class Judged:
    """One target.

    Attributes:
        what: it is about.
        wanted: the bound.
        measured: the figure.
        met: whether it is within.
        floor: the same figure of a proxy on our server, with our client, that looks at nothing.
    """

    what: str
    wanted: str
    measured: str
    met: bool
    floor: str = ""


@dataclass(frozen=True, slots=True)
class _Ratio:
    """A target that one figure has to another."""

    what: str
    over: Place
    under: Place
    figure: str
    bound: float
    least: bool = True
    under_figure: str = ""


_RATIOS = (
    _Ratio("requests/s, c=16: ours / nginx", Place(FEW, OURS), Place(FEW, NGINX_NAME), "rate", 0.3),
    _Ratio(
        "requests/s, c=16: ours / FastAPI + httpx", Place(FEW, OURS), Place(FEW, NAIVE), "rate", 20
    ),
    _Ratio("requests/s, c=16: ours / LiteLLM", Place(FEW, OURS), Place(FEW, LITELLM_NAME), "rate",
        60,
    ),
    _Ratio(
        "p50, c=1: ours / nginx", Place(ONE, OURS), Place(ONE, NGINX_NAME), "p50_ms", 6, least=False
    ),
    _Ratio(
        "p50, c=1: ours / FastAPI + httpx", Place(ONE, OURS), Place(ONE, NAIVE), "p50_ms", 0.2,
        least=False,
    ),
    _Ratio(
        "ours, c=1: p99 / p50", Place(ONE, OURS), Place(ONE, OURS), "p99_ms", 3, least=False,
        under_figure="p50_ms",
    ),
    _Ratio("requests/s, ours: c=2000 / c=16", Place(MANY, OURS), Place(FEW, OURS), "rate", 0.8),
    _Ratio(
        "requests/s, c=16: `/v1/sample` / transparent", Place(FEW, OUR_SAMPLE), Place(FEW, OURS),
        "rate", 0.5,
    ),
    _Ratio(
        "requests/s, c=16: `/v1/forward_backward` / transparent", Place(FEW, OUR_TRAINING),
        Place(FEW, OURS), "rate", 0.5,
    ),
    _Ratio(
        "requests/s, 5 MB: ours / nginx", Place(LARGE, OURS), Place(LARGE, NGINX_NAME), "rate", 0.85
    ),
    _Ratio(
        "requests/s, 5 MB: ours / nginx with buffers of 256 KiB", Place(LARGE, OURS),
        Place(LARGE, NGINX_LARGE), "rate", 0.85,
    ),
)  # fmt: skip


def judged(figures: Figures, held: Sequence[Held]) -> list[Judged]:
    """All targets for which there is something measured."""
    return [*_ratios(figures), *_others(figures), *_of_memory(figures, held)]


def _ratios(figures: Figures) -> Iterator[Judged]:
    for one in _RATIOS:
        if figures.has(one.over, one.under):
            got = figures.ratio(one.over, one.under, one.figure, one.under_figure)
            met = got.median >= one.bound if one.least else got.median <= one.bound
            sign = "≥" if one.least else "≤"
            floor = _floor(figures, one)
            yield Judged(one.what, f"{sign} {one.bound:g}", got.said(3), met, floor)


def _floor(figures: Figures, one: _Ratio) -> str:
    if one.over.name != OURS:
        return ""
    over, under = (
        Place(place.load, FLOOR_PROXY if place.name == OURS else place.name)
        for place in (one.over, one.under)
    )
    if not figures.has(over, under):
        return ""
    return figures.ratio(over, under, one.figure, one.under_figure).said(3)


def _others(figures: Figures) -> Iterator[Judged]:
    ours, direct = Place(ONE, OURS), Place(ONE, DIRECT)
    if figures.has(ours, direct):
        base = figures.spread(direct, "p50_ms").median
        added = figures.spread(ours, "p50_ms").median - base
        bound, floor = f"≤ {ADDED_MS:g} ms (a guide)", ""
        if figures.has(empty := Place(ONE, FLOOR_PROXY)):
            floor = f"{figures.spread(empty, 'p50_ms').median - base:.3f} ms"
        yield Judged("p50 over direct, c=1", bound, f"{added:.3f} ms", added <= ADDED_MS, floor)
    for name in (OURS, OUR_SAMPLE, OUR_TRAINING):
        if figures.has(many := Place(MANY, name)):
            errors = figures.errors(many)
            yield Judged(f"errors, c=2000, {name}", "0", str(errors), errors == 0)


def _of_memory(figures: Figures, held: Sequence[Held]) -> Iterator[Judged]:
    for one in held:
        met = one.each_kib <= HELD_KIB and one.answered == CALLS
        measured = f"{one.each_kib:.1f} KiB ({one.idle_mib:.0f} → {one.held_mib:.0f} MiB)"
        what = f"memory of a call that waits, {one.name}"
        yield Judged(what, f"≤ {HELD_KIB:g} KiB", measured, met)
    if figures.has(large := Place(LARGE, OURS)):
        peak = figures.peak_mib(large)
        wanted = f"≤ {LARGE_MIB:.0f} MiB (80 + 4 bodies)"
        yield Judged("most resident, 5 MB c=4", wanted, f"{peak:.0f} MiB", peak <= LARGE_MIB)
