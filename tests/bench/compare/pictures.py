"""Pictures of a comparison: throughput by callers, and the time that a lone caller waits."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from tests.bench.compare.contestants import OURS
from tests.bench.compare.figures import Figures, Place
from tests.bench.compare.rounds import BY_LOAD

# The same bytes for the same figures, and text that can be searched.
_STYLE = {"svg.hashsalt": "tinkex-proxy", "svg.fonttype": "none", "font.size": 9}
_OURS, _OTHERS = "#0b6e4f", "#9aa5b1"


def draw(figures: Figures, loads: Sequence[str], folder: Path) -> str:
    """Write the pictures; gives the Markdown that shows them."""
    shown = []
    small = [load for load in loads if not BY_LOAD[load].large]
    with mpl.rc_context(_STYLE):
        for load in loads:
            name = f"performance-{load.replace(' ', '-').replace('=', '').lower()}.svg"
            _bars(figures, load).savefig(folder / name, metadata={"Date": None})
            shown.append(f"![Requests a second, {load}](images/{name})")
        if len(small) > 1:
            name = "performance-callers.svg"
            _lines(figures, small).savefig(folder / name, metadata={"Date": None})
            shown.insert(0, f"![Requests a second by number of callers](images/{name})")
    return "\n\n".join(shown)


def _bars(figures: Figures, load: str) -> Figure:
    """Requests a second of each, with their range, on a logarithmic axis."""
    spreads = {name: figures.spread(Place(load, name), "rate") for name in figures.names(load)}
    names = sorted(spreads, key=lambda name: spreads[name].median)
    values = [spreads[name].median for name in names]
    below = [spreads[name].median - spreads[name].low for name in names]
    above = [spreads[name].high - spreads[name].median for name in names]
    picture = Figure(figsize=(7.5, 0.6 + 0.27 * len(names)), layout="constrained")
    axes = picture.add_subplot(xscale="log", title=f"Requests a second, {load} (logarithmic)")
    colours = [_OURS if name.startswith(OURS) else _OTHERS for name in names]
    axes.barh(names, values, color=colours, xerr=[below, above], error_kw={"linewidth": 0.8})
    axes.spines[["top", "right"]].set_visible(False)
    return picture


def _lines(figures: Figures, loads: Sequence[str]) -> Figure:
    """Requests a second by number of callers."""
    picture = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = picture.add_subplot(
        xscale="log", yscale="log", xlabel="callers", title="Requests a second by number of callers"
    )
    everybody = list(dict.fromkeys(name for load in loads for name in figures.names(load)))
    for number, name in enumerate(everybody):
        there = [load for load in loads if figures.has(Place(load, name))]
        callers = [BY_LOAD[load].connections for load in there]
        rates = [figures.spread(Place(load, name), "rate").median for load in there]
        ours = name.startswith(OURS)
        style = {"marker": "o", "markersize": 4, "linewidth": 2.5 if ours else 1}
        axes.plot(callers, rates, color=mpl.colormaps["tab20"](number), label=name, **style)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return picture
