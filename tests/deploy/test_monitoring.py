"""Dashboard, rules, configuration and guide name what there is, and nothing else.

What the rules do is tested by promtool, and what a Prometheus makes of all this by one
(tests/e2e/test_monitoring.py).
"""

import itertools
import json
import re
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
import yaml

from tests.deploy.promql import Named, all_named, named_in
from tinkex_proxy.api.plain import plain_routes
from tinkex_proxy.api.problems import STATUS
from tinkex_proxy.api.sdk_lane import LANE_CALLS
from tinkex_proxy.core.breaker import State
from tinkex_proxy.core.outcome import Operation, Outcome
from tinkex_proxy.core.timeline import Part
from tinkex_proxy.runtime.series import SERIES, Series

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROMETHEUS = ROOT / "deploy/prometheus"
CONFIG = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
GRAFANA = ROOT / "deploy/grafana"
BOARD = json.loads((GRAFANA / "dashboards/tinkex-proxy.json").read_text())
PANELS = BOARD["panels"]
SHOWING = [panel for panel in PANELS if panel["type"] != "row"]
RULES = [
    rule
    for file in CONFIG["rule_files"]
    for group in yaml.safe_load((PROMETHEUS / file).read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
GUIDE = (ROOT / "docs/guides/monitoring.md").read_text()


def operations() -> set[str]:
    """Of the plain calls: each route says how its calls go on after a restart, by operation."""
    services = Mock(revivers={})
    plain_routes(services)
    return set(services.revivers)


# Prometheus' own, and the labels that it gives to whatever it scrapes.
OF_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate"}}
SCRAPED = {"job", "instance"}

PLAIN = operations()
SDK = {f"sdk_{operation.value}" for operation in Operation}  # requests, which take their time
OF_LANES = {f"sdk_{name}" for name in LANE_CALLS}  # what comes of some of them
UPSTREAM = {operation.value for operation in Operation}
# The labels whose values somebody selects by; of `operation` it depends on the series.
VALUES = {
    "code": {*STATUS, "ok", "withdrawn"},
    "outcome": {outcome.value for outcome in Outcome},
    "part": {part.value for part in Part},
    "tinkex_proxy_circuit_breaker_state": {state.value for state in State},
}
COMPUTED = PLAIN - {"capabilities", "list_models", "show_model", "delete_model"}


def shown() -> Named:
    return all_named([target["expr"] for panel in SHOWING for target in panel["targets"]])


def asked() -> Named:
    return all_named([rule["expr"] for rule in RULES])


def told() -> Named:
    """What the guide names, in text or in code."""
    words = re.findall(r"\b(?:tinkex_proxy_|process_|http_request)\w+", GUIDE)
    return Named({word: {} for word in words})


def row_of(name: str) -> Series:
    """The table's row of a series; of a histogram whichever part of it."""
    whole = re.sub(r"_(bucket|sum|count)$", "", name)
    histogram = whole in SERIES and SERIES[whole].kind == "histogram"
    return SERIES[whole if histogram else name]


def held(named: Named) -> dict[str, dict[str, set[str]]]:
    """What of it has to be in the table."""
    return {
        name: labels
        for name, labels in named.series.items()
        if name not in OF_PROMETHEUS and name not in RECORDED
    }


# --- names


@pytest.mark.parametrize("named", [shown(), asked(), told()], ids=["dashboard", "rules", "guide"])
def test_every_series_and_label_is_in_the_table(named: Named) -> None:
    """With every label that it is selected by, and every one that anything is grouped by."""
    assert held(named)
    labels = {"le"} | SCRAPED
    for name, selected in held(named).items():
        assert set(selected) <= {*row_of(name).labels, *SCRAPED}, name
        labels.update(row_of(name).labels)
    assert named.grouped <= labels


@pytest.mark.parametrize("named", [shown(), asked()], ids=["dashboard", "rules"])
def test_every_value_that_is_selected_is_one_that_comes(named: Named) -> None:
    for name, selected in held(named).items():
        upstream = name.startswith("tinkex_proxy_upstream")
        values = {**VALUES, "operation": UPSTREAM if upstream else PLAIN | SDK | OF_LANES}
        for label in set(selected) - SCRAPED:
            assert selected[label] <= values[label], (name, label)


def test_every_series_is_on_a_running_proxy(proxy_url: str) -> None:
    with httpx.Client(base_url=proxy_url, trust_env=False, timeout=30) as client:
        made = client.post("/v1/models", json={"base_model": "sandbox/tiny-1"}).json()
        body = {"model_id": made["model_id"], "data": [{"tokens": [1], "targets": [2]}]}
        client.post("/v1/forward_backward", json=body).raise_for_status()
        scraped = client.get("/metrics").text
    families = set(re.findall(r"(?m)^# TYPE (\S+)", scraped))
    named = {name for one in (shown(), asked(), told()) for name in held(one)}
    assert {row_of(name).name for name in named} <= families


def test_what_is_recorded_is_what_is_asked_for() -> None:
    used = {name for one in (shown(), asked()) for name in one.series if ":" in name}
    assert used == RECORDED


def test_nearly_everything_is_on_the_dashboard() -> None:
    """Or there is a reason: what is left out says nothing of its own there."""
    left_out = {"process_virtual_memory_bytes"}
    assert set(SERIES) - {row_of(name).name for name in held(shown())} == left_out


# --- dashboard


def test_the_upstreams_share_is_of_all_parts_that_are_its_own() -> None:
    (panel,) = [panel for panel in SHOWING if panel["title"] == "The upstream's share"]
    selected = named_in(panel["targets"][0]["expr"]).series["tinkex_proxy_call_part_seconds_sum"]
    assert selected["part"] == {part.value for part in Part if part.upstream}


def test_panels_have_ids_and_titles_of_their_own() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = set(
            itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
        )
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells


def test_the_dashboard_asks_whichever_data_source_is_chosen() -> None:
    """One import, whatever the data source is called there."""
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert {variables[name]["datasource"]["uid"] for name in SCRAPED} == {"${datasource}"}
    for panel in SHOWING:
        assert panel["datasource"] == chosen
        assert all(target["datasource"] == chosen for target in panel["targets"])
    assert "id" not in BOARD
    assert BOARD["uid"]


def test_every_query_is_of_the_proxies_that_are_chosen() -> None:
    for panel in SHOWING:
        for target in panel["targets"]:
            for name, selected in named_in(target["expr"]).series.items():
                chosen = {label: selected.get(label) for label in SCRAPED}
                assert chosen == {"job": {"$job"}, "instance": {"$instance"}}, (panel, name)


def test_queries_of_a_panel_can_be_told_apart() -> None:
    for panel in SHOWING:
        assert panel["targets"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


# --- rules


def test_the_alerts_that_were_asked_for_are_there() -> None:
    assert set(ALERTS) == {
        "TinkexProxyBreakerOpen",
        "TinkexProxyBatchesFail",
        "TinkexProxySlow",
        "TinkexProxyMemoryGrows",
        "TinkexProxyDown",
        "TinkexProxyJournalFailing",
    }


@pytest.mark.parametrize("rule", ALERTS.values(), ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "description", "runbook"} == set(rule["annotations"])
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"(?m)^#+ (.*)$", (ROOT / page).read_text())
    assert anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}


def test_no_limit_is_set_for_what_the_upstream_computes() -> None:
    """And one for all else, whatever will be added."""
    (limit,) = [rule for rule in RULES if rule.get("record") == "tinkex_proxy:p99_limit_seconds"]
    (selected,) = re.findall(r'operation!~"([^"]*)"', limit["expr"])
    assert set(selected.split("|")) == COMPUTED | {"sdk_poll"}


def test_the_guide_says_which_operation_has_a_limit() -> None:
    """As shipped."""
    rows = re.findall(r"(?m)^\| (`.*) \| (1 s|none) \|$", GUIDE)
    said = {limit: set(re.findall(r"`(\w+)`", names)) for names, limit in rows}
    assert said["none"] == COMPUTED | {"sdk_poll"}
    assert said["1 s"] == (PLAIN | SDK) - said["none"]


def test_the_limit_that_is_there_as_a_comment_is_the_guides_and_can_be_read() -> None:
    text = (PROMETHEUS / "limits.yml").read_text()
    (group,) = yaml.safe_load(re.sub(r"(?m)^( {6})# ", r"\1", text))["groups"]
    examples = re.findall(r"```yaml\n( *- record:.*?)```", GUIDE, re.DOTALL)
    assert [yaml.safe_load(example) for example in examples] == [group["rules"][1:]]


# --- how it hangs together


def test_prometheus_finds_its_rules_and_nothing_but_them() -> None:
    files = {path.name for path in PROMETHEUS.iterdir()}
    assert files == {*CONFIG["rule_files"], "prometheus.yml", "alerts.test.yml"}
    (scrape,) = CONFIG["scrape_configs"]
    assert f'job="{scrape["job_name"]}"' in ALERTS["TinkexProxyDown"]["expr"]


def test_grafana_asks_prometheus_as_often_as_that_scrapes() -> None:
    file = GRAFANA / "provisioning/datasources/prometheus.yml"
    (source,) = yaml.safe_load(file.read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == CONFIG["global"]["scrape_interval"]


def mounts(service: str) -> dict[str, Path]:
    """What of the repository a container sees, by where."""
    volumes = [volume.split(":") for volume in COMPOSE["services"][service]["volumes"]]
    return {to: ROOT / since for since, to, *_ in volumes if since.startswith("./")}


def test_compose_mounts_what_prometheus_and_grafana_read() -> None:
    assert mounts("prometheus") == {"/etc/prometheus": ROOT / "./deploy/prometheus"}
    seen = mounts("grafana")
    assert seen["/etc/grafana/provisioning"] == GRAFANA / "provisioning"
    file = GRAFANA / "provisioning/dashboards/tinkex-proxy.yml"
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    folder = provider["options"]["path"]
    home = COMPOSE["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert (seen[folder] / Path(home).relative_to(folder)).is_file()


def test_grafana_comes_only_when_asked_for() -> None:
    assert COMPOSE["services"]["grafana"]["profiles"] == ["monitoring"]
    assert "profiles" not in COMPOSE["services"]["prometheus"]
    assert "--profile monitoring" in GUIDE


# --- guide


def test_the_guide_explains_every_panel_and_alert() -> None:
    for panel in SHOWING:
        assert f"**{panel['title']}**" in GUIDE, panel["title"]
    for panel in PANELS:
        if panel["type"] == "row":
            assert f"### {panel['title']}\n" in GUIDE
    for alert in ALERTS:
        assert f"### {alert}\n" in GUIDE


def test_the_guide_explains_no_panel_that_is_not_there() -> None:
    listed = re.findall(r"(?m)^\| \*\*(.+?)\*\* \|", GUIDE)
    assert listed == [panel["title"] for panel in SHOWING]
