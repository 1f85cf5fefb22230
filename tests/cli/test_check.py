import socket

import pytest

from tinkex_proxy.cli import check


def url_of(upstream) -> str:
    return f"http://127.0.0.1:{upstream.server_port}/tinker"


def test_a_good_configuration_and_a_well_upstream_pass(run, upstream, monkeypatch) -> None:
    """The key goes along, to the configured origin."""
    monkeypatch.setenv("TINKER_API_KEY", "tml-canary")
    status, out, errors = run("check", "--upstream.base-url", url_of(upstream))
    assert status == 0
    assert "configuration: good" in out
    assert out.endswith("reachable\n")
    assert upstream.seen == [("/tinker/api/v1/healthz", "tml-canary")]
    assert "canary" not in out + errors


def test_offline_asks_nobody(run, upstream) -> None:
    status, out, _ = run("check", "--offline", "--upstream.base-url", url_of(upstream))
    assert (status, out) == (0, "configuration: good\n")
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("status", "key", "said"),
    [(401, "tml-x", "refuses the key"), (403, "", "wants a key"), (503, "", "answers 503")],
)
def test_an_upstream_that_says_no_is_unavailable(
    run, upstream, monkeypatch, status: int, key: str, said: str
) -> None:
    upstream.status = status
    monkeypatch.setenv("TINKER_API_KEY", key)
    exit_status, out, _ = run("check", "--upstream.base-url", url_of(upstream))
    assert exit_status == 69
    assert said in out


def test_an_upstream_that_is_not_there_is_unavailable(run) -> None:
    status, out, _ = run("check", "--upstream.base-url", "http://127.0.0.1:9")
    assert status == 69
    assert "cannot be reached" in out


def test_an_upstream_that_is_silent_is_unavailable(run, monkeypatch) -> None:
    monkeypatch.setattr(check, "PATIENCE_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        status, out, _ = run("check", "--upstream.base-url", url)
    assert status == 69
    assert "does not answer within 0.05 s" in out


def test_no_proxy_of_the_environment_is_asked(run, upstream, monkeypatch) -> None:
    """It would be given the key; the daemon obeys none either."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert run("check", "--upstream.base-url", url_of(upstream))[0] == 0


def test_a_contradiction_is_bad_configuration(run) -> None:
    status, _, errors = run("check", "--upstream.base-url", "http://localhost:8465")
    assert status == 78
    assert "call itself" in errors


def test_a_warning_is_told_and_passes(run) -> None:
    status, out, _ = run("check", "--offline", "--host", "0.0.0.0")
    assert status == 0
    assert "warning: server.host 0.0.0.0 is not a loopback address" in out
