import json
from pathlib import Path

import pytest

from tinkex_proxy.cli import status


def test_it_shows_a_running_proxy_and_why_it_is_not_ready(run, proxy_url: str) -> None:
    """Unavailable by its status, because the upstream is not there."""
    exit_status, out, _ = run("status", "--url", proxy_url)
    assert exit_status == 69
    first, second, *rest = out.splitlines()
    assert first.endswith(f"on {proxy_url} for http://127.0.0.1:9")
    assert second.startswith("not ready: ")
    assert any(line.startswith("breaker 127.0.0.1-9-") and "state=" in line for line in rest)


def test_it_judges_and_gives_the_figures_of_the_last_minute(run, proxy_url: str) -> None:
    """An upstream that is not there is the upstream's doing; each sentence that matters is told."""
    lines = run("status", "--url", proxy_url)[1].splitlines()
    assert any(line.startswith("verdict: The upstream ") for line in lines)
    assert any(line.startswith("  upstream: ") for line in lines)
    figures = next(line for line in lines if line.startswith("last minute: "))
    assert figures.startswith("last minute: calls 0.0/s, failed 0, in flight 0, P50 ")


def test_the_same_as_json(run, proxy_url: str) -> None:
    _, out, _ = run("status", "--url", proxy_url, "--json")
    shown = json.loads(out)
    wanted = {"ready", "reason", "version", "breakers", "lanes"}
    assert set(shown) == {*wanted, "verdict", "last_minute", "in_flight"}
    assert shown["ready"] is False
    assert shown["lanes"] == []


def test_health_is_being_alive_not_being_ready(run, proxy_url: str) -> None:
    """A container that waits for its upstream must not be killed for it."""
    assert run("status", "--url", proxy_url, "--health") == (0, "", "")


def test_the_settings_say_where_it_is(run, proxy_url: str) -> None:
    """Wildcard addresses are listened on, not called."""
    port = proxy_url.rpartition(":")[2]
    assert run("status", "--health", "--port", port)[0] == 0
    assert run("status", "--health", "--port", port, "--host", "0.0.0.0")[0] == 0


def test_a_unix_socket_is_called_by_its_path(run, start, tmp_path: Path) -> None:
    path = str(tmp_path / "p.sock")
    process = start("serve", "--uds", path, "--upstream.base-url", "http://127.0.0.1:9")
    assert path in process.stdout.readline()
    assert run("status", "--health", "--uds", path)[0] == 0


def test_nobody_there_is_told_plainly(run, tmp_path: Path) -> None:
    exit_status, _, errors = run("status", "--port", "9")
    assert exit_status == 69
    assert "no proxy answers on http://127.0.0.1:9" in errors
    path = str(tmp_path / "none.sock")
    assert f"no proxy answers on {path}" in run("status", "--uds", path)[2]


@pytest.mark.parametrize("code", [200, 404])
def test_something_else_there_is_not_a_proxy(run, upstream, code: int) -> None:
    upstream.status = code
    exit_status, _, errors = run("status", "--url", f"http://127.0.0.1:{upstream.server_port}")
    assert exit_status == 69
    assert "no proxy answers" in errors


def test_a_table_leaves_out_what_is_not_known() -> None:
    rows = [{"id": "b", "state": "open", "retry_after_s": None}]
    (line,) = status._table("breaker", rows, ("id", "state", "retry_after_s"))
    assert line == "breaker b: state=open"
    assert list(status._table("breaker", None, ("id",))) == []
    assert list(status._verdict(None)) == []
    assert status._figures(None, 0) == ""
