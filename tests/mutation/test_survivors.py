"""What `make mutants` lists, as far as it can be held without running it."""

import pytest

from tests.mutation.__main__ import PAGE, ROOT, Survivor, page, place_of, reasons
from tinkex_proxy.core import circuit

KNOWN = reasons()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("tinkex_proxy.core.window.xǁWindowǁclear__mutmut_9", "core.window Window.clear"),
        ("tinkex_proxy.core.breaker.xǁGateǁ__init____mutmut_2", "core.breaker Gate.__init__"),
        ("tinkex_proxy.core.coalesce.x_decide__mutmut_35", "core.coalesce decide"),
        ("tinkex_proxy.core.coalesce.x__preferred__mutmut_4", "core.coalesce _preferred"),
    ],
)
def test_a_mutant_is_found_by_its_name(name: str, place: str) -> None:
    assert place_of(name) == place


@pytest.mark.parametrize("one", sorted(KNOWN), ids=lambda one: f"{one.where}: {one.became}")
def test_a_survivor_is_of_a_line_that_is_there_and_has_a_reason(one: Survivor) -> None:
    """Whoever changes the line runs `make mutants` again."""
    module, _, _ = one.where.partition(" ")
    text = (ROOT / "tinkex_proxy" / f"{module.replace('.', '/')}.py").read_text()
    assert one.was in " ".join(line.strip() for line in text.splitlines())
    assert KNOWN[one]


def test_the_page_lists_every_survivor_and_its_reason() -> None:
    text = PAGE.read_text()
    assert [why for why in KNOWN.values() if why not in text] == []


def test_what_has_no_reason_is_told_so() -> None:
    name = f"{circuit.__name__}.x_f__mutmut_1"
    text = page(
        {name: "survived", f"{name}0": "killed"}, [Survivor("core.circuit f", "a", "b")], {}
    )
    assert "| `core.circuit` | 2 | 1 | 1 |" in text
    assert "| `core.circuit f` | `a` | `b` | **no reason yet** |" in text
