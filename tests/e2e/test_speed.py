"""A regression guard: what no careless change may cost, as ratios on whatever machine this is.

The margins are wide, because a machine that runs tests is no judge of a few per cent; what is
claimed is measured by `make bench`.
"""

import pytest

from tests.bench.compare import running
from tests.bench.compare.contestants import NAIVE, NGINX_NAME, OUR_SAMPLE, OUR_TRAINING, OURS
from tests.bench.compare.figures import Figures, Place
from tests.bench.compare.rounds import BY_LOAD, Plan, measure

LOAD = BY_LOAD["c=16"]
NAMES = (NGINX_NAME, OURS, OUR_SAMPLE, OUR_TRAINING, NAIVE)
# Half of what was measured, or less: whose requests a second, by whose, at least.
BOUNDS = (
    (OURS, NGINX_NAME, 0.05),
    (OURS, NAIVE, 4),
    (OUR_SAMPLE, OURS, 0.25),
    (OUR_TRAINING, OURS, 0.25),
)


@pytest.fixture(scope="module")
def figures() -> Figures:
    running.more_files()
    return Figures(measure(Plan([LOAD], NAMES, rounds=3, seconds=1), print))


@pytest.mark.parametrize(("over", "under", "least"), BOUNDS)
def test_it_is_as_fast_beside_others_as_it_was(
    figures: Figures, over: str, under: str, least: float
) -> None:
    """With 16 callers and a small body, by the median of the rounds."""
    got = figures.ratio(Place(LOAD.name, over), Place(LOAD.name, under), "rate")
    assert got.median >= least, f"{over} by {under}: {got.said(3)}"


@pytest.mark.parametrize("name", NAMES)
def test_every_call_is_answered_well(figures: Figures, name: str) -> None:
    """An error is soon given, and would look like speed."""
    assert figures.errors(Place(LOAD.name, name)) == 0
