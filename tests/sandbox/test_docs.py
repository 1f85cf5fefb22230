"""docs/sandbox.md is run: every block starts its sandbox, and every answer is compared."""

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import started, url_in
from tinkex_proxy.cli import sandbox
from tinkex_proxy.sandbox.faults import KINDS, PATHS

TEXT = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
ANY = "…"


def commands_and_answers(block: str) -> list[tuple[str, str]]:
    """What is typed after each `$`, over lines that end in a backslash, and what comes."""
    pairs = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        typed = 1
        while lines[typed - 1].endswith("\\"):
            typed += 1
        pairs.append(("\n".join(lines[:typed]), "\n".join(lines[typed:])))
    return pairs


def matches(shown: str, got: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in shown.split(ANY))
    return re.fullmatch(pattern, got, re.DOTALL) is not None


@pytest.mark.parametrize("block", BLOCKS, ids=map(str, range(1, len(BLOCKS) + 1)))
def test_every_block_answers_as_shown(block: str) -> None:
    assert shutil.which("curl"), "this test runs curl"
    (start, nothing), *rest = commands_and_answers(block)
    program, *arguments, ampersand = shlex.split(start.replace("\\\n", " "))
    assert (program, arguments[0], ampersand, nothing) == ("tinkex-proxy", "sandbox", "&", "")
    if "--port" in arguments:
        at = arguments.index("--port")
        del arguments[at : at + 2]
    with started(*arguments, "--port", "0") as process:
        there = url_in(process.stdout.readline()).removeprefix("http://")
        for command, shown in rest:
            here = command.replace("localhost:8466", there)
            ran = subprocess.run(
                ["bash", "-c", here],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            got = ran.stdout.replace("\r", "").strip()
            assert matches(shown, got), f"{command}\nshown: {shown}\ngot:   {got}"


def test_every_option_has_its_row() -> None:
    parser = argparse.ArgumentParser()
    sandbox.add(parser.add_subparsers())
    (subparsers,) = parser._subparsers._group_actions
    options = {
        option
        for action in subparsers.choices["sandbox"]._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }
    assert len(options) >= 10
    assert [one for one in sorted(options) if f"`{one}`" not in TEXT] == []
    run = [start for block in BLOCKS for start, _ in commands_and_answers(block)[:1]]
    assert [one for one in sorted(options) if not any(one in start for start in run)] == []


def test_every_fault_and_each_of_its_fields_is_told() -> None:
    words = {f"`{kind}`" for kind in KINDS} | {f"`{name}`" for name in PATHS}
    words |= {f"`{name}`" for kind in KINDS.values() for name in kind.__struct_fields__}
    assert [word for word in sorted(words) if word not in TEXT] == []


@pytest.mark.parametrize(
    ("shown", "got", "equal"),
    [("a…c", "abbc", True), ("a…c", "abb", False), ("a.c", "abc", False), ("", "x", False)],
)
def test_the_comparison_can_fail(shown: str, got: str, equal: bool) -> None:
    assert matches(shown, got) is equal
