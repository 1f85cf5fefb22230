"""The comparison's part of docs/performance.md, in Markdown."""

from collections.abc import Sequence

from tests.bench.compare.contestants import OURS
from tests.bench.compare.figures import Figures, Place
from tests.bench.compare.rounds import LOADS
from tests.bench.compare.runs import Run
from tests.bench.compare.targets import Judged

_HEAD = """Machine: {machine}.

Versions: {versions}.

{rounds} rounds, turns of {seconds} s ({longer}).

| what | target | measured | | an empty proxy (uvicorn + our client) |
|---|---|---|---|---|
{targets}
"""
_COLUMNS = (
    "| | requests/s | times ours | p50 ms | p99 ms | processor, µs each | most MiB | errors |"
    "\n|---|---|---|---|---|---|---|---|"
)


def target_rows(targets: Sequence[Judged]) -> str:
    """The rows of the table of targets."""
    return "\n".join(
        f"| {one.what} | {one.wanted} | {one.measured} | {_verdict(one)} | {one.floor} |"
        for one in targets
    )


def _verdict(one: Judged) -> str:
    return "met" if one.met else "**not met**"


def load_table(figures: Figures, load: str) -> str:
    """The table of one load, fastest first."""
    rate = {name: figures.spread(Place(load, name), "rate") for name in figures.names(load)}
    names = sorted(rate, key=lambda name: -rate[name].median)
    return "\n".join([_COLUMNS, *(_row(figures, Place(load, name)) for name in names)])


def _row(figures: Figures, place: Place) -> str:
    ours = Place(place.load, OURS)
    rate = figures.spread(place, "rate")
    beside = figures.ratio(place, ours, "rate").said(2) if figures.has(ours) else ""
    of_each = (("p50_ms", 3), ("p99_ms", 3), ("cpu_us", 0))
    cells = [
        f"**{place.name}**" if place.name.startswith(OURS) else place.name,
        rate.said(0),
        beside,
        # In some round it may not have answered a single call.
        *(
            figures.spread(place, name).said(digits) if rate.low else "-"
            for name, digits in of_each
        ),
        f"{figures.peak_mib(place):.0f}",
        str(figures.errors(place)),
    ]
    return f"| {' | '.join(cells)} |"


def section(run: Run, figures: Figures, targets: Sequence[Judged], pictures: str) -> str:
    """All of it.

    Args:
        run: what was done.
        figures: what was measured.
        targets: what was aimed at.
        pictures: what shows them.
    """
    head = _HEAD.format(
        machine=run.machine,
        versions=run.versions,
        rounds=run.rounds,
        seconds=run.seconds,
        longer=", ".join(
            f"with {load.connections:,} callers at least {load.least_s} s"
            for load in LOADS
            if load.least_s > 1
        ),
        targets=target_rows(targets),
    )
    tables = [f"#### {load}\n\n{load_table(figures, load)}" for load in run.loads]
    return "\n\n".join(part.strip() for part in [head, pictures, *tables])
