"""The operators' kit, by Prometheus' own checker: its rules and their unit tests."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.environments import promtool

ROOT = Path(__file__).parents[2]
KIT = ROOT / "deploy/prometheus"


def tool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(promtool()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_promtool_takes_configuration_and_rules() -> None:
    """Of the rules by themselves too: only that check looks for duplicates."""
    checked = tool("check", "config", KIT / "prometheus.yml")
    assert not checked.returncode, checked.stdout + checked.stderr
    checked = tool("check", "rules", KIT / "limits.yml", KIT / "alerts.yml")
    assert not checked.returncode, checked.stdout + checked.stderr


def test_promtool_takes_the_further_limit_that_is_there_as_a_comment(tmp_path: Path) -> None:
    limits = tmp_path / "limits.yml"
    limits.write_text(re.sub(r"(?m)^( {6})# ", r"\1", (KIT / "limits.yml").read_text()))
    checked = tool("check", "rules", limits)
    assert "2 rules found" in checked.stdout
    assert not checked.returncode, checked.stdout + checked.stderr


def test_rules_do_what_their_unit_tests_say() -> None:
    tested = tool("test", "rules", KIT / "alerts.test.yml")
    assert not tested.returncode, tested.stdout + tested.stderr


@pytest.mark.parametrize(
    ("file", "rule", "spoilt"),
    [
        ("alerts.yml", "[3m]", "[1s]"),
        ("alerts.yml", "for: 5m", "for: 10m"),
        ("alerts.yml", "open|forced_open", "open"),
        ("alerts.yml", "ratio > 0.05", "ratio > 0.03"),
        ("alerts.yml", "ratio > 0.05", "ratio > 0.2"),
        ("alerts.yml", '="submit", outcome', '=~".+", outcome'),
        ("alerts.yml", ">= 20", ">= 2"),
        ("alerts.yml", "ratio > 0.10", "ratio > 0.05"),
        ("alerts.yml", "for: 75m", "for: 30m"),
        ("alerts.yml", "and on (job, instance) time()", "or time()"),
        ("alerts.yml", "and on (job, instance) tinkex_proxy_build_info", ""),
        ("limits.yml", "|forward_backward|", "|"),
        ("limits.yml", "1 + 0", "2 + 0"),
    ],
)
def test_a_rule_that_was_spoilt_does_not_pass(
    tmp_path: Path, file: str, rule: str, spoilt: str
) -> None:
    """The unit tests see each number, and what each rule leaves out."""
    kit = Path(shutil.copytree(KIT, tmp_path / "kit"))
    text = (kit / file).read_text()
    assert rule in text
    (kit / file).write_text(text.replace(rule, spoilt))
    tested = tool("test", "rules", kit / "alerts.test.yml")
    assert "FAILED" in tested.stdout + tested.stderr
