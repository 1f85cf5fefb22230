"""The comparison's part of docs/performance.md, in Markdown."""

from collections.abc import Sequence

from tests.bench.compare.contestants import OURS
from tests.bench.compare.figures import Figures, Place
from tests.bench.compare.targets import Judged

_HEAD = """Machine: {machine}.

Versions: {versions}.

{rounds} rounds, turns of {seconds} s (of 5 s at least with 2,000 callers).

| what | target | measured | |
|---|---|---|---|
{targets}
"""
_COLUMNS = (
    "| | requests/s | times ours | p50 ms | p99 ms | processor, µs each | most MiB | errors |"
    "\n|---|---|---|---|---|---|---|---|"
)


def target_rows(targets: Sequence[Judged]) -> str:
    """The rows of the table of targets."""
    return "\n".join(
        f"| {one.what} | {one.wanted} | {one.measured} | {'met' if one.met else '**not met**'} |"
        for one in targets
    )


def load_table(figures: Figures, load: str) -> str:
    """The table of one load, fastest first."""
    rate = {name: figures.spread(Place(load, name), "rate") for name in figures.names(load)}
    names = sorted(rate, key=lambda name: -rate[name].median)
    return "\n".join([_COLUMNS, *(_row(figures, Place(load, name)) for name in names)])


def _row(figures: Figures, place: Place) -> str:
    ours = Place(place.load, OURS)
    beside = figures.ratio(place, ours, "rate").said(2) if figures.has(ours) else ""
    cells = [
        f"**{place.name}**" if place.name.startswith(OURS) else place.name,
        figures.spread(place, "rate").said(0),
        beside,
        figures.spread(place, "p50_ms").said(3),
        figures.spread(place, "p99_ms").said(3),
        figures.spread(place, "cpu_us").said(0),
        f"{figures.peak_mib(place):.0f}",
        str(figures.errors(place)),
    ]
    return f"| {' | '.join(cells)} |"


def section(
    figures: Figures, loads: Sequence[str], targets: Sequence[Judged], **said: object
) -> str:
    """All of it.

    Args:
        figures: what was measured.
        loads: their names.
        targets: what was aimed at.
        said: `machine`, `versions`, `rounds`, `seconds`, and `pictures`, in Markdown.
    """
    parts = [_HEAD.format(targets=target_rows(targets), **said), str(said["pictures"])]
    parts += [f"#### {load}\n\n{load_table(figures, load)}" for load in loads]
    return "\n\n".join(part.strip() for part in parts)
