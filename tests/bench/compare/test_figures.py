"""Ratios are taken within a round; targets speak only of what was measured."""

from tests.bench.compare.contestants import FLOOR_PROXY, LITELLM_NAME, NAIVE, NGINX_NAME, OURS
from tests.bench.compare.figures import Figures, Place, Spread
from tests.bench.compare.held import Held
from tests.bench.compare.page import load_table, target_rows
from tests.bench.compare.rounds import Peak, Seen, Turn
from tests.bench.compare.targets import judged


def turn(name: str, number: int, rate: float, errors: int = 0) -> Turn:
    return Turn("c=16", name, number, rate, 1.0, 2.0, 30.0, errors)


def seen(**rates: list[float]) -> Seen:
    names = {"ours": OURS, "nginx": NGINX_NAME, "naive": NAIVE}
    turns = [
        turn(names[name], number, rate)
        for name, listed in rates.items()
        for number, rate in enumerate(listed)
    ]
    return Seen(turns, [Peak("c=16", names[name], 50.0) for name in rates])


def test_a_ratio_is_of_the_same_round_before_its_median_is_taken():
    """The machine was four times slower in the second round: no ratio has seen it."""
    figures = Figures(seen(ours=[100, 25, 110], nginx=[200, 50, 200]))
    got = figures.ratio(Place("c=16", OURS), Place("c=16", NGINX_NAME), "rate")
    assert got == Spread(0.5, 0.5, 0.55)


def test_a_round_in_which_the_other_did_nothing_gives_no_ratio():
    figures = Figures(seen(ours=[100, 100], nginx=[0, 200]))
    got = figures.ratio(Place("c=16", OURS), Place("c=16", NGINX_NAME), "rate")
    assert got == Spread(0.5, 0.5, 0.5)


def test_targets_are_judged_where_both_sides_were_measured():
    targets = judged(Figures(seen(ours=[100], nginx=[200], naive=[50])), [])
    assert [(one.wanted, one.met) for one in targets] == [("≥ 0.3", True), ("≥ 20", False)]
    assert LITELLM_NAME not in target_rows(targets)
    assert "**not met**" in target_rows(targets)


def test_what_a_proxy_that_does_nothing_comes_to_stands_beside_a_target():
    """So that a target below which nobody can come is seen as one."""
    made = seen(ours=[20], nginx=[100])
    made.turns.append(turn(FLOOR_PROXY, 0, 28))
    assert [one.floor for one in judged(Figures(made), [])] == ["0.280"]


def test_memory_is_judged_only_as_met_where_every_call_was_answered():
    figures = Figures(Seen([], []))
    well = Held(OURS, 70.0, 90.0, answered=2000)
    ill = Held(OURS, 70.0, 90.0, answered=1999)
    assert [one.met for one in judged(figures, [well, ill])] == [True, False]


def test_a_table_lists_the_fastest_first_and_counts_errors():
    made = seen(ours=[100, 120], nginx=[200, 240])
    made.turns.append(turn(OURS, 2, 110, errors=3))
    rows = load_table(Figures(made), "c=16").splitlines()
    assert rows[2].startswith("| nginx | 220 (200 to 240) | 2.00 |")
    assert rows[3].startswith("| **ours** | 110 (100 to 120) | 1.00 |")
    assert rows[3].endswith("| 50 | 3 |")


def test_a_table_tells_no_times_of_calls_that_were_never_answered():
    made = seen(ours=[100, 100], naive=[0, 10])
    rows = load_table(Figures(made), "c=16").splitlines()
    assert rows[3] == f"| {NAIVE} | 5 (0 to 10) | 0.05 (0.00 to 0.10) | - | - | - | 50 | 0 |"
