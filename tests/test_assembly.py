"""The configuration reaches the parts it is meant for."""

import httpx
import pytest

from tinkex_proxy.api.asgi import BodyLimits
from tinkex_proxy.assembly import _breaker_settings, build
from tinkex_proxy.config import Settings
from tinkex_proxy.core.admission import Bounds
from tinkex_proxy.core.trip import TripSettings
from tinkex_proxy.errors import ApiKeyMissing
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.loop_lag import INTERVAL_S
from tinkex_proxy.wire.datum import Flavour

UPSTREAM = {"upstream.base_url": "http://127.0.0.1:1/prefix/"}


async def account_with(**options: object):
    named = {name.replace("__", "."): value for name, value in options.items()}
    return build(Settings.load({**UPSTREAM, **named})).services.accounts.of(None)


async def test_batching_settings_become_limits_in_seconds() -> None:
    account = await account_with(
        batching__window_ms=20,
        batching__idle_flush_ms=2,
        batching__max_batch_size=3,
        batching__max_datums=4,
        batching__max_bytes=5000,
        batching__preferred_sizes=[2, 4],
    )
    limits = account.limits
    assert (limits.linger_s, limits.idle_s, limits.max_requests) == (0.02, 0.002, 3)
    assert (limits.max_datums, limits.max_bytes, limits.preferred_datums) == (4, 5000, (2, 4))


async def test_the_breaker_is_named_after_upstream_and_key_and_trips_as_set() -> None:
    account = await account_with(circuit_breaker__failure_threshold=2)
    shown = account.upstream.breaker.snapshot("u", account.key_id)
    assert shown["id"] == "127.0.0.1-1-none"
    assert shown["failure_threshold"] == 2
    chosen = {
        "adaptive_threshold": True,
        "failure_rate": 0.25,
        "minimum_calls": 7,
        "window_s": 9,
        "slow_call_ms": 2500,
        "slow_call_rate": 0.75,
        "timeout_ms": 4000,
        "max_timeout_ms": 8000,
        "half_open_max_calls": 3,
        "success_threshold": 2,
    }
    options = {f"circuit_breaker.{name}": value for name, value in chosen.items()}
    gate = _breaker_settings(Settings.load({**UPSTREAM, **options})).gate
    assert gate.trip == TripSettings(
        adaptive=True, failure_rate=0.25, minimum_calls=7, window_s=9, slow_s=2.5, slow_rate=0.75
    )
    assert (gate.open_for_s, gate.longest_open_s) == (4, 8)
    assert (gate.max_probes, gate.successes_to_close) == (3, 2)
    off = await account_with(circuit_breaker__enabled=False)
    assert off.upstream.breaker.snapshot("u", "k")["state"] == "disabled"


async def test_a_flavour_is_taken_or_left_to_be_found_out() -> None:
    assert (await account_with()).settings.flavour is None
    assert (await account_with(upstream__flavour="json")).settings.flavour is Flavour.JSON
    assert (await account_with(batching__enabled=False)).settings.coalesce is False


async def test_the_hosted_service_wants_a_key_and_others_may_not() -> None:
    hosted = build(Settings.load({}))
    with pytest.raises(ApiKeyMissing):
        hosted.services.accounts.of(None)
    assert build(Settings.load(UPSTREAM)).services.accounts.of(None).key_id == "none"


async def test_what_callers_meet_is_set_too() -> None:
    options = {
        "server.max_body_bytes": 5000,
        "admission.body_timeout_s": 4,
        "calls.default_timeout_s": 7,
        "upstream.extra_loss_fns": ["mine"],
    }
    settings = build(Settings.load({**UPSTREAM, **options})).services.settings
    assert settings.body == BodyLimits(5000, 4)
    assert settings.default_timeout_s == 7
    assert settings.extra_loss_fns == frozenset({"mine"})


async def test_what_is_taken_on_is_bounded_as_set() -> None:
    options = {
        "admission.max_bytes": 70_000_000,
        "admission.max_calls": 3000,
        "admission.max_lane_depth": 40,
    }
    intake = build(Settings.load({**UPSTREAM, **options})).services.intake
    assert intake.admission.bounds == Bounds(
        max_bytes=70_000_000, max_calls=3000, max_lane_depth=40
    )
    assert build(Settings.load(UPSTREAM)).services.intake.admission.bounds == Bounds()


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_event_loops_lag_is_looked_at_while_the_proxy_runs(enabled) -> None:
    """Not before there is a loop, not after the end, and not where nobody scrapes."""
    clock = ManualClock()
    proxy = build(Settings.load({**UPSTREAM, "metrics.enabled": enabled}), clock=clock)
    assert clock.pending == 0
    stages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        stage = next(stages)
        if stage == "lifespan.shutdown":
            clock.advance(INTERVAL_S + 0.25)
        return {"type": stage}

    async def send(_: object) -> None:
        pass

    await proxy.app({"type": "lifespan"}, receive, send)
    assert clock.pending == 0
    transport = httpx.ASGITransport(proxy.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        scraped = (await client.get("/metrics")).text
    assert ("tinkex_proxy_event_loop_lag_seconds_sum 0.25" in scraped) is enabled
