"""A reload changes what can change, all or nothing, and names what cannot."""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from tinkex_proxy.assembly import Proxy, build
from tinkex_proxy.config import ConfigError, Settings
from tinkex_proxy.config.names import all_settings
from tinkex_proxy.errors import BadConfiguration
from tinkex_proxy.reload import LIVE, RESTART, reload_table
from tinkex_proxy.runtime.logs import configure_logs
from tinkex_proxy.server import _pause_s

OPERATIONS = Path(__file__).parents[1] / "docs/operations.md"
CONSOLE = structlog.dev.ConsoleRenderer
BASE = {"upstream.base_url": "http://127.0.0.1:1"}


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    logging.getLogger("tinkex_proxy").setLevel(logging.NOTSET)
    root.handlers[:] = handlers
    root.setLevel(level)


class Layers:
    """What a user has set, and may set otherwise."""

    def __init__(self, **options: object) -> None:
        self.options = {**BASE, **options}

    def read(self) -> Settings:
        return Settings.load(self.options)

    def build(self) -> Proxy:
        return build(self.read(), reread=self.read)


def gate(proxy: Proxy) -> object:
    return proxy.services.accounts.of(None).upstream.breaker._gate


def account(proxy: Proxy) -> object:
    return proxy.services.accounts.of(None)


def bounds(proxy: Proxy) -> object:
    return proxy.services.intake.admission.bounds


def sdk(proxy: Proxy) -> object:
    routes = proxy.app._app._app.router.routes
    (route,) = [r for r in routes if getattr(r, "path", "").startswith("/api/v1")]
    return route.app._app


# For each live setting: another value, and where it is seen at work (or the settings that `server`
# reads at the moment it needs them).
SEEN: dict[str, tuple[object, Callable[[Proxy], object], object]] = {
    "server.allowed_hosts": (["box"], lambda p: "box" in p.app._names, True),
    "server.max_body_bytes": (5000, lambda p: p.services.settings.body.max_bytes, 5000),
    "server.drain_pause_ms": (70, lambda p: _pause_s(p.reloads.settings), 0.07),
    "server.drain_linger_ms": (70, lambda p: p.reloads.settings.server.drain_linger_ms, 70),
    "upstream.request_timeout_s": (
        70,
        lambda p: (account(p).upstream._timeout_s, sdk(p)._settings.request_timeout_s),
        (70, 70),
    ),
    "upstream.poll_timeout_s": (70, lambda p: account(p).tools.poller._hold_s, 70),
    "upstream.submit_retry_s": (70, lambda p: account(p).tools.submitter._patience_s, 70),
    "upstream.heartbeat_interval_s": (70, lambda p: account(p).session._interval_s, 70),
    "upstream.max_keys": (7, lambda p: p.services.accounts._max_keys, 7),
    "upstream.extra_loss_fns": (["mine"], lambda p: p.services.settings.extra_loss_fns, {"mine"}),
    "circuit_breaker.enabled": (False, lambda p: gate(p).enabled, False),
    "circuit_breaker.failure_threshold": (7, lambda p: gate(p).threshold, 7),
    "circuit_breaker.adaptive_threshold": (True, lambda p: gate(p)._trip._baseline is None, False),
    "circuit_breaker.timeout_ms": (7000, lambda p: gate(p).settings.open_for_s, 7),
    "circuit_breaker.max_timeout_ms": (70_000, lambda p: gate(p).settings.longest_open_s, 70),
    "circuit_breaker.half_open_max_calls": (7, lambda p: gate(p).settings.max_probes, 7),
    "circuit_breaker.success_threshold": (7, lambda p: gate(p).settings.successes_to_close, 7),
    "circuit_breaker.failure_rate": (0.7, lambda p: gate(p)._trip._settings.failure_rate, 0.7),
    "circuit_breaker.minimum_calls": (7, lambda p: gate(p)._trip._settings.minimum_calls, 7),
    "circuit_breaker.window_s": (7, lambda p: gate(p)._trip._window._slot_s, 0.7),
    "circuit_breaker.slow_call_ms": (7, lambda p: gate(p)._trip.is_slow(0.01), True),
    "circuit_breaker.slow_call_rate": (0.7, lambda p: gate(p)._trip._settings.slow_rate, 0.7),
    "batching.enabled": (False, lambda p: account(p).settings.coalesce, False),
    "batching.window_ms": (7, lambda p: account(p).limits.linger_s, 0.007),
    "batching.max_batch_size": (7, lambda p: account(p).limits.max_requests, 7),
    "batching.max_datums": (7, lambda p: account(p).limits.max_datums, 7),
    "batching.max_bytes": (7, lambda p: account(p).limits.max_bytes, 7),
    "batching.idle_flush_ms": (0.7, lambda p: account(p).limits.idle_s, 0.0007),
    "batching.preferred_sizes": ([7], lambda p: account(p).limits.preferred_datums, (7,)),
    "admission.max_bytes": (10**9, lambda p: bounds(p).max_bytes, 10**9),
    "admission.max_calls": (7, lambda p: bounds(p).max_calls, 7),
    "admission.max_lane_depth": (70, lambda p: bounds(p).max_lane_depth, 70),
    "admission.body_timeout_s": (7, lambda p: p.services.settings.body.stall_s, 7),
    "metrics.snapshot_interval_ms": (70, lambda p: p.intervals._interval_s, 0.07),
    "sdk.coalesce": (True, lambda p: sdk(p)._lanes.coalesce, True),
    "calls.default_timeout_s": (7, lambda p: p.services.settings.default_timeout_s, 7),
    "calls.retention_s": (7, lambda p: p.services.ledger._retention.keep_s, 7),
    "calls.max_kept_answers": (7, lambda p: p.services.ledger._retention.max_answers, 7),
    "calls.max_kept_bytes": (7, lambda p: p.services.ledger._retention.max_bytes, 7),
    "calls.shutdown_grace_s": (7, lambda p: p.reloads.settings.calls.shutdown_grace_s, 7),
    "log.level": ("debug", lambda _: structlog.get_logger().is_enabled_for(logging.DEBUG), True),
    "log.format": ("console", lambda _: type(structlog.get_config()["processors"][-1]), CONSOLE),
    "tracing.sample_ratio": (0.25, lambda p: p.services.tracer._ratio, 0.25),
}
OTHERWISE = {
    "server.host": "::1",
    "server.port": 1234,
    "server.uds": "/tmp/p.sock",  # noqa: S108
    "upstream.base_url": "http://127.0.0.1:2",
    "upstream.transport": "httpx",
    "upstream.connect_timeout_s": 7,
    "upstream.flavour": "json",
    "upstream.deduplicates": "yes",
    "upstream.retry_budget_ratio": 0.7,
    "upstream.retry_budget_per_s": 7,
    "journal.enabled": False,
    "journal.state_dir": "/tmp/state",  # noqa: S108
    "journal.sync": "full",
    "journal.on_failure": "refuse",
    "journal.max_bytes": 2**21,
    "sdk.mode": "transparent",
    "metrics.enabled": False,
    "metrics.histogram_max_size": 7,
}


def test_every_setting_is_live_or_needs_a_restart() -> None:
    """A new setting is put into one of the two, with its reason or with its effect below."""
    assert not LIVE & RESTART.keys()
    assert LIVE | RESTART.keys() == {setting.key for setting in all_settings()}
    assert SEEN.keys() == LIVE


def test_operators_find_the_table() -> None:
    """When this fails: paste the output of `reload_table()`."""
    assert reload_table() in OPERATIONS.read_text()


@pytest.mark.parametrize("name", SEEN)
async def test_what_is_live_takes_effect_at_once(name: str) -> None:
    """For keys in use already, and for those that come later."""
    configure_logs("info", "json")
    value, look, seen = SEEN[name]
    layers = Layers()
    proxy = layers.build()
    before = look(proxy)
    layers.options[name] = value
    (change,) = proxy.reload().changed
    assert change.setting == name
    assert before != look(proxy)
    assert look(proxy) == seen
    later = proxy.services.accounts.of("tml-later")
    assert later.settings == account(proxy).settings
    assert later.upstream.breaker._gate.settings == gate(proxy).settings
    again = proxy.reload()
    assert (again.changed, again.needs_restart) == ([], [])


@pytest.mark.parametrize("name", OTHERWISE)
async def test_what_needs_a_restart_stays_and_is_named_every_time(name: str) -> None:
    layers = Layers()
    proxy = layers.build()
    before = proxy.reloads.settings
    layers.options[name] = OTHERWISE[name]
    for _ in range(2):
        outcome = proxy.reload()
        (change,) = outcome.needs_restart
        assert (change.setting, change.why) == (name, RESTART[name])
        assert outcome.changed == []
        assert proxy.reloads.settings == before


async def test_a_key_is_told_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__API_KEY", "tml-canary-1")
    layers = Layers()
    proxy = layers.build()
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__API_KEY", "tml-canary-2")
    outcome = proxy.reload()
    (change,) = outcome.needs_restart
    assert change.setting == "upstream.api_key"
    assert "canary" not in str(outcome.told()) + outcome.sentence() + repr(outcome)


async def test_live_and_not_live_in_one_reload() -> None:
    layers = Layers()
    proxy = layers.build()
    layers.options |= {"server.port": 1234, "batching.window_ms": 20}
    told = proxy.reload().told()
    assert told["changed"] == [{"setting": "batching.window_ms", "from": 5.0, "to": 20.0}]
    assert [change["setting"] for change in told["needs_restart"]] == ["server.port"]
    assert told["unchanged"] == len(list(all_settings())) - 2
    assert proxy.reloads.settings.server.port == 8465
    assert proxy.reloads.settings.batching.window_ms == 20


async def test_what_is_worth_a_second_look_is_told() -> None:
    layers = Layers()
    proxy = layers.build()
    layers.options["batching.max_batch_size"] = 1
    (warning,) = proxy.reload().warnings
    assert "no call ever shares a request" in warning


async def test_a_bad_configuration_changes_nothing_and_all_is_said() -> None:
    layers = Layers()
    proxy = layers.build()
    before = proxy.reloads.settings
    layers.options |= {"batching.window_ms": 20, "log.level": "loud", "calls.retention_s": -1}
    with pytest.raises(BadConfiguration) as told:
        proxy.reload()
    assert len(told.value.problems) == 2
    assert proxy.reloads.settings is before
    assert account(proxy).limits.linger_s == 0.005


async def test_a_contradiction_is_refused_as_at_the_start() -> None:
    layers = Layers()
    proxy = layers.build()
    layers.options |= {"batching.window_ms": 2000, "calls.default_timeout_s": 1}
    with pytest.raises(BadConfiguration, match="nothing has changed") as told:
        proxy.reload()
    assert "calls would expire" in told.value.problems[0]
    assert account(proxy).limits.linger_s == 0.005


async def test_what_contradicts_only_until_the_restart_is_refused_too() -> None:
    """The new name would make the old upstream this proxy's own listener."""
    layers = Layers(**{"upstream.base_url": "http://box:8465"})
    proxy = layers.build()
    layers.options |= {"upstream.base_url": "http://other:1", "server.allowed_hosts": ["box"]}
    with pytest.raises(BadConfiguration, match="needs a restart"):
        proxy.reload()
    assert "box" not in proxy.app._names


async def test_a_part_that_cannot_be_made_keeps_all_others_as_they_are() -> None:
    layers = Layers()
    proxy = layers.build()

    def fails(settings: Settings) -> object:
        if settings.batching.window_ms == 20:
            raise RuntimeError("no such part")
        return None

    proxy.reloads.feed(fails, lambda _: None)
    layers.options["batching.window_ms"] = 20
    with pytest.raises(RuntimeError, match="no such part"):
        proxy.reload()
    assert proxy.reloads.settings.batching.window_ms == 5
    assert account(proxy).limits.linger_s == 0.005


async def test_a_part_whose_settings_are_the_same_is_left_alone() -> None:
    layers = Layers()
    proxy = layers.build()
    given: list[object] = []
    proxy.reloads.feed(lambda s: s.log.level, given.append)
    layers.options["batching.window_ms"] = 20
    proxy.reload()
    layers.options["log.level"] = "error"
    proxy.reload()
    assert given == ["error"]


async def test_a_file_that_cannot_be_read_is_a_bad_configuration(tmp_path: Path) -> None:
    settings = Settings.load(BASE)
    proxy = build(settings, reread=lambda: Settings.load(BASE, tmp_path / "none.toml"))
    with pytest.raises(BadConfiguration) as told:
        proxy.reload()
    assert "cannot read the file" in told.value.problems[0]
    with pytest.raises(ConfigError):
        Settings.load(BASE, tmp_path / "none.toml")


async def test_where_nothing_can_be_read_again_nothing_changes() -> None:
    outcome = build(Settings.load(BASE)).reload()
    assert (outcome.changed, outcome.needs_restart) == ([], [])
    assert outcome.sentence() == "changed nothing"
    assert dataclasses.asdict(outcome)["unchanged"] == len(list(all_settings()))
