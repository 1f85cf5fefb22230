"""The operators' kit, by Prometheus' own programs: its rules, its unit tests, a real scrape."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.e2e.environments import prometheus, promtool
from tests.faults.harness import Refused, Stack, apart, caller, endings, stack

ROOT = Path(__file__).parents[2]
KIT = ROOT / "deploy/prometheus"
BOARD = json.loads((ROOT / "deploy/grafana/dashboards/tinkex-proxy.json").read_text())
# What the dashboard's variables stand for when nothing is chosen.
CHOSEN = {"$job": ".+", "$instance": ".+", "$__rate_interval": "30s"}
# Panels that have nothing to show after half a minute in which nothing was shed, lost or repeated.
QUIET = {"Shed", "Repetitions recognised", "Growth of memory", "Held back by the upstream", "Spans"}
# An outage is soon over, and nobody has to find out in it whether the sandbox knows repetitions.
PROXY = ("--circuit-breaker.timeout-ms", "1000", "--upstream.deduplicates", "yes")
# The outage has moved a breaker, and there are two scrapes since to tell a rate from.
SCRAPED_AFTER = "min(count_over_time(tinkex_proxy_circuit_breaker_transitions_total[1m])) > 2"


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


@contextmanager
def scraping(target: str, folder: Path) -> Iterator[httpx.Client]:
    """A Prometheus with the kit's configuration, but for the target and how often it looks."""
    kit = Path(shutil.copytree(KIT, folder / "kit"))
    config = (kit / "prometheus.yml").read_text()
    assert "proxy:8465" in config
    config = config.replace("proxy:8465", target).replace("15s", "1s")
    (kit / "prometheus.yml").write_text(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    command = [
        str(prometheus()),
        f"--config.file={kit / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--enable-feature=exemplar-storage",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        try:
            assert child.stderr is not None
            said = iter(child.stderr.readline, "")
            assert any("ready to receive web requests" in line for line in said)
            with httpx.Client(base_url=f"http://{address}", trust_env=False) as client:
                yield client
        finally:
            child.terminate()


def ask(client: httpx.Client, expression: str) -> list[object]:
    for variable, value in CHOSEN.items():
        expression = expression.replace(variable, value)
    answer = client.get("/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    return list(answer["data"]["result"])


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Stack]:
    with stack(tmp_path, proxy=PROXY) as up:
        yield up


async def test_every_panel_shows_something_of_a_run(running: Stack, tmp_path: Path) -> None:
    """Training and an outage, scraped as it is deployed; every rule can be worked out."""
    target = running.proxy.url.removeprefix("http://")
    with scraping(target, tmp_path) as client:
        async with caller(running.proxy.url, patience_s=60) as trainer:
            running.faults({"kind": "error", "status": 503, "from_s": 0.5, "for_s": 2})
            for _ in range(60):
                with pytest.raises(Refused):
                    await trainer.call("/v1/optim_step", {"model_id": "nobody's"})
                endings(await apart(trainer, 5), running)
                if ask(client, SCRAPED_AFTER):
                    break
        groups = client.get("/api/v1/rules").json()["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert {(rule["health"], rule.get("lastError")) for rule in rules} == {("ok", None)}
        empty = {
            panel["title"]
            for panel in BOARD["panels"]
            if panel["type"] != "row"
            and not any(ask(client, target["expr"]) for target in panel["targets"])
        }
        assert empty == QUIET
        for variable in BOARD["templating"]["list"][1:]:
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert found is not None
            path = f"/api/v1/label/{found[2]}/values"
            selector = found[1].replace("$job", ".+")
            values = client.get(path, params={"match[]": selector}).json()["data"]
            assert values == [{"job": "tinkex-proxy", "instance": target}[found[2]]]
