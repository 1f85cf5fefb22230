"""The README is run: every `console` block in one shell, every answer compared."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```console\n\$ (.*?)```", README, re.DOTALL)
ANY = "…"


def command_and_answer(block: str) -> tuple[str, object]:
    """The command ends at the first line that begins with a brace."""
    command, brace, answer = block.partition("\n{")
    return command, json.loads(brace + answer)


def same(shown: object, got: object) -> bool:
    """Equal, but for `…` (anything) and the last digits of floats."""
    if shown == ANY:
        return True
    if shown == [ANY]:
        return isinstance(got, list)
    if isinstance(shown, float) and isinstance(got, float):
        return math.isclose(shown, got, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(shown, dict) and isinstance(got, dict):
        return shown.keys() == got.keys() and all(same(shown[k], got[k]) for k in shown)
    if isinstance(shown, list) and isinstance(got, list):
        return len(shown) == len(got) and all(map(same, shown, got))
    return type(shown) is type(got) and shown == got


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) >= 10


def test_every_block_answers_as_shown(proxy_url: str) -> None:
    """In order, as a reader would paste them; readiness may take a moment after the start."""
    assert shutil.which("curl"), "this test runs curl"
    ready = f"curl -s --retry 20 --retry-all-errors --fail {proxy_url}/health/ready"
    subprocess.run(["bash", "-c", ready], check=True, capture_output=True)
    for block in BLOCKS:
        command, shown = command_and_answer(block)
        here = command.replace("localhost:8465", proxy_url.removeprefix("http://"))
        ran = subprocess.run(["bash", "-c", here], capture_output=True, text=True, check=True)
        got = json.loads(ran.stdout)
        assert same(shown, got), f"{command}\nshown: {shown}\ngot:   {got}"


@pytest.mark.parametrize(
    ("shown", "got", "equal"),
    [
        ({"a": ANY}, {"a": 5}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1.0], [1.0000000001], True),
        ([1.0], [1.1], False),
        ([ANY], [1, 2], True),
        (1, True, False),
    ],
)
def test_the_comparison_can_fail(shown: object, got: object, equal: bool) -> None:
    assert same(shown, got) is equal


def test_the_configuration_table_is_the_codes() -> None:
    from tinkex_proxy.config import settings_table  # noqa: PLC0415

    assert settings_table().strip() in README


def test_links_to_files_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
