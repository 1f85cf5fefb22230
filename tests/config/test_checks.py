import importlib.util

import pytest

from tinkex_proxy.config import Settings, find_contradictions, find_warnings


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "127.0.0.1", "[::1]", "0.0.0.0", "localhost."]
)
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0", "::1", "localhost"])
def test_an_upstream_that_is_our_own_listener_is_found(host: str, bound: str) -> None:
    """Whichever loopback name it goes by."""
    settings = Settings.load({"upstream.base_url": f"http://{host}:8465/x", "server.host": bound})
    (found,) = find_contradictions(settings)
    assert "call itself" in found


def test_our_own_name_on_a_network_is_found_too() -> None:
    options = {"upstream.base_url": "https://proxy", "server.host": "0.0.0.0"}
    options |= {"server.allowed_hosts": "proxy", "server.port": "443"}
    (found,) = find_contradictions(Settings.load(options))
    assert "call itself" in found


@pytest.mark.parametrize(
    "options",
    [
        {"upstream.base_url": "http://localhost:8466"},
        {"upstream.base_url": "http://tinker.example:8465"},
        {"upstream.base_url": "http://localhost:8465", "server.uds": "/run/p.sock"},
        {"upstream.base_url": "http://localhost:8465", "server.host": "192.0.2.1"},
    ],
)
def test_another_listener_is_no_loop(options: dict[str, str]) -> None:
    assert find_contradictions(Settings.load(options)) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batching.window_ms": "1000", "calls.default_timeout_s": "1"}, "expire while they wait"),
        ({"batching.idle_flush_ms": "6"}, "the window always ends first"),
        ({"batching.preferred_sizes": "8,2000"}, r"\[2000\] exceed batching.max_datums"),
        ({"upstream.connect_timeout_s": "61"}, "can never pass"),
        ({"circuit_breaker.slow_call_ms": "60000"}, "it fails first"),
        ({"admission.max_bytes": "1000000"}, "only while nothing else is held"),
        ({"admission.max_lane_depth": "9"}, "never wait together"),
    ],
)
def test_a_setting_that_another_makes_void_is_found(options: dict[str, str], sentence: str) -> None:
    (found,) = find_contradictions(Settings.load(options))
    assert pytest.RaisesExc(Exception, match=sentence).matches(Exception(found))


def test_the_defaults_contradict_nothing() -> None:
    assert find_contradictions(Settings()) == []
    assert find_warnings(Settings()) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "proxy.example"])
def test_listening_beyond_loopback_is_worth_a_warning(host: str) -> None:
    (found,) = find_warnings(Settings.load({"server.host": host}))
    assert "not a loopback address" in found


def test_a_unix_socket_listens_to_nobody_else() -> None:
    options = {"server.host": "0.0.0.0", "server.uds": "/run/p.sock"}
    assert find_warnings(Settings.load(options)) == []


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://tinker.example", True),
        ("https://tinker.example", False),
        ("http://127.0.0.1:1", False),
    ],
)
def test_a_key_sent_unencrypted_to_another_machine_is_worth_a_warning(
    url: str, *, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__API_KEY", "tml-x")
    found = find_warnings(Settings.load({"upstream.base_url": url}))
    assert ["unencrypted" in one for one in found] == [True] * warned


def test_batches_of_one_are_worth_a_warning() -> None:
    options = {"batching.max_batch_size": "1"}
    (found,) = find_warnings(Settings.load(options))
    assert "no call ever shares" in found
    assert find_warnings(Settings.load({**options, "batching.enabled": "false"})) == []


def test_fewer_calls_than_one_sdk_makes_are_worth_a_warning() -> None:
    (found,) = find_warnings(Settings.load({"admission.max_calls": "1999"}))
    assert "2000 samples" in found
    assert find_warnings(Settings.load({"admission.max_calls": "2000"})) == []


def test_a_shallow_lane_contradicts_nothing_where_no_calls_share() -> None:
    options = {"admission.max_lane_depth": "1", "batching.enabled": "false"}
    assert find_contradictions(Settings.load(options)) == []


def test_a_time_open_that_never_grows_is_worth_a_warning() -> None:
    options = {"circuit_breaker.timeout_ms": "600000"}
    (found,) = find_warnings(Settings.load(options))
    assert "Raise max_timeout_ms" in found
    assert find_warnings(Settings.load({"circuit_breaker.timeout_ms": "300000"})) == []


COLLECTOR = {"tracing.endpoint": "http://collector.example:4318"}


def test_spans_that_cannot_be_sent_for_want_of_packages_stop_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where `opentelemetry` itself is there, for its API comes with other packages."""
    settings = Settings.load(COLLECTOR)
    assert find_contradictions(settings) == []
    there = importlib.util.find_spec

    def without_its_package(name: str) -> object:
        if name == "opentelemetry.exporter.otlp.proto.http":
            raise ModuleNotFoundError
        return there(name)

    def without_the_sdk(name: str) -> object:
        return None if name == "opentelemetry.sdk" else there(name)

    for find in (without_its_package, without_the_sdk):
        monkeypatch.setattr(importlib.util, "find_spec", find)
        (found,) = find_contradictions(settings)
        assert "pip install 'tinkex-proxy[otel]'" in found
        assert find_contradictions(Settings()) == []


def test_headers_for_no_collector_and_unencrypted_ones_are_worth_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TINKEX_PROXY_TRACING__HEADERS", "authorization=secret-word")
    (found,) = find_warnings(Settings.load({}))
    assert "tracing.endpoint is not" in found
    (found,) = find_warnings(Settings.load(COLLECTOR))
    assert "unencrypted" in found
    assert "secret-word" not in found
    for endpoint in ("https://collector.example", "http://localhost:4318"):
        assert find_warnings(Settings.load({"tracing.endpoint": endpoint})) == []
