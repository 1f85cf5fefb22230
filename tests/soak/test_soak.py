"""The soak's own parts, and a soak of a few seconds."""

import pytest

from tests.soak.__main__ import main
from tests.soak.gauges import Reading, growth_mib, slope_per_s, total
from tests.soak.report import BEGIN, END, PAGE, put, table
from tests.soak.rules import Soak
from tests.soak.weather import LONGEST_S, MENU, OUTAGES, SHORTEST_S, Weather
from tinkex_proxy.sandbox.plans import read_plan


def test_the_same_seed_is_the_same_weather() -> None:
    one, same, other = Weather(5), Weather(5), Weather(6)
    spells = [one.next() for _ in range(50)]
    assert spells == [same.next() for _ in range(50)]
    assert spells != [other.next() for _ in range(50)]


def test_the_weather_is_calm_at_times_and_at_times_nothing_works() -> None:
    weather = Weather(1)
    spells = [weather.next() for _ in range(300)]
    assert all(SHORTEST_S <= spell.lasts_s <= LONGEST_S for spell in spells)
    assert 30 < sum(not spell.faults for spell in spells) < 90
    assert 10 < sum(spell.faults in [(one,) for one in OUTAGES] for spell in spells) < 60


def test_the_sandbox_takes_every_fault_of_the_weather() -> None:
    import msgspec  # noqa: PLC0415

    faults = [*MENU, *OUTAGES]
    assert len(read_plan(msgspec.json.encode({"faults": faults})).faults) == len(faults)


def test_a_slope_is_of_the_nearest_line() -> None:
    assert slope_per_s([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope_per_s([(0, 1), (1, 5), (2, 1)]) == pytest.approx(0)
    assert slope_per_s([(3, 1)]) == slope_per_s([]) == 0


def test_growth_is_of_the_last_process_in_its_second_half() -> None:
    """What came before is a warm-up; what was killed is another process."""
    killed = [Reading(at, 1, 500 + at, 9) for at in range(100)]
    warm = [Reading(100 + at, 2, 50 + 10 * at, 9) for at in range(60)]
    flat = [Reading(160 + at, 2, 90 + at / 2, 9) for at in range(60)]
    assert growth_mib(killed + warm + flat) == pytest.approx(29.5)
    assert growth_mib(killed + flat) is None, "up for half a minute where its second half begins"


def test_series_of_a_name_are_added_up_by_label() -> None:
    seen = {'a_total{x="1"}': 2.0, 'a_total{x="2"}': 3.0, "a_total_created": 9.0, "b": 1.0}
    assert total(seen, "a_total") == 5
    assert total(seen, "a_total", 'x="2"') == 3


def test_the_table_takes_the_place_of_the_last_one() -> None:
    page = f"before\n{BEGIN}\n\nold\n\n{END}\nafter"
    put_once = put(page, table({"a": 1}))
    assert put_once == f"before\n{BEGIN}\n\n| figure | |\n|---|---|\n| a | 1 |\n\n{END}\nafter"
    assert put(put_once, table({"a": 1})) == put_once
    with pytest.raises(ValueError, match="no place"):
        put("nothing", "")
    assert put(PAGE.read_text(), "x") != PAGE.read_text()


def test_a_rule_that_is_broken_is_noted() -> None:
    soak = Soak(1, kills_wanted=False, seed=1)
    soak.hold("kept", kept=True)
    assert soak.violations == []
    soak.hold("broken", kept=False)
    assert soak.violations == ["broken"]


@pytest.mark.long
def test_a_soak_of_seconds_keeps_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--seconds", "6", "--seed", "4"])
    said = capsys.readouterr()
    assert (status, said.err) == (0, "")
    assert "| models equal to an undisturbed replay | 7 of 7 |" in said.out
