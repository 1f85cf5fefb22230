"""docs/parity.md leaves no behaviour out, and what it and docs/breakers.md say is held is held."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "parity.md"
COUNTS = {
    "RT": 8,
    "FU": 7,
    "QS": 1,
    "RL": 4,
    "BS": 3,
    "SD": 3,
    "CH": 2,
    "RD": 3,
    "CB": 19,
    "RG": 9,
    "ME": 8,
}
IDS = [f"{family}-{number:02}" for family, n in COUNTS.items() for number in range(1, n + 1)]
TEST = re.compile(r"`([\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    lines = PAGE.read_text().splitlines()
    return [line.strip("| ").split(" | ") for line in lines if re.match(r"\| [A-Z]{2}-\d\d ", line)]


def named(rows: list[list[str]]) -> list[tuple[str, str]]:
    return sorted({found for row in rows for found in TEST.findall(row[-1])})


def functions_of(path: Path) -> set[str]:
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return {n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, functions)}


def test_every_behaviour_has_one_row() -> None:
    assert [row[0] for row in rows()] == IDS


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_row_has_a_verdict_and_a_test_or_a_reason(row: list[str]) -> None:
    """What is the same is held by a test; what differs says why."""
    _, behaviour, verdict, rest = row
    assert behaviour
    assert verdict in {"same", "differs"}
    assert TEST.search(rest) if verdict == "same" else TEST.sub("", rest).strip()


@pytest.mark.parametrize(("file", "test"), named(rows()))
def test_every_test_that_is_named_exists(file: str, test: str) -> None:
    assert test.startswith("test_")
    assert test in functions_of(TESTS / file)


def test_every_test_of_this_folder_is_named() -> None:
    """A behaviour that is held here can be found from the page."""
    here = {
        (f"parity/{path.name}", name)
        for path in Path(__file__).parent.glob("test_*.py")
        if path.name != Path(__file__).name
        for name in functions_of(path)
        if name.startswith("test_")
    }
    assert here <= set(named(rows()))


BREAKERS = (TESTS.parent / "docs" / "breakers.md").read_text()


@pytest.mark.parametrize(("file", "test"), sorted(set(TEST.findall(BREAKERS))))
def test_every_test_of_the_breakers_page_exists(file: str, test: str) -> None:
    assert test in functions_of(TESTS / file)


def test_every_defect_of_aiobreaker_on_the_page_has_its_test() -> None:
    numbers = re.findall(r"^\| (\d+) \|", BREAKERS, re.MULTILINE)
    tests = sorted(functions_of(TESTS / "runtime" / "test_aiobreaker_defects.py"))
    held = [name.split("_")[1] for name in tests if name.startswith("test_")]
    assert [f"{int(number):02}" for number in numbers] == held
