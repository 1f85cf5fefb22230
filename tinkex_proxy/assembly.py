"""Everything is built here, once, from the configuration: no socket is opened, no task started."""

import contextlib
import hashlib
import importlib.metadata
import platform
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import msgspec
import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.routing import BaseRoute

from tinkex_proxy.api.app import make_app
from tinkex_proxy.api.asgi import ASGIApp, BodyLimits
from tinkex_proxy.api.breakers import Breakers
from tinkex_proxy.api.calls import PlainSettings, Services
from tinkex_proxy.api.dashboard import Dashboard, dashboard_router
from tinkex_proxy.api.guard import Guard
from tinkex_proxy.api.lifecycle import Lifecycle
from tinkex_proxy.api.operations import Operations, Readiness
from tinkex_proxy.api.plain import plain_routes
from tinkex_proxy.api.sdk import SdkRoute, SdkRouteSettings
from tinkex_proxy.api.sdk_small import sdk_routes
from tinkex_proxy.api.snapshots import Snapshots
from tinkex_proxy.api.web.pages import page_router, read_files
from tinkex_proxy.config import Settings, masked
from tinkex_proxy.core.admission import Bounds
from tinkex_proxy.core.backoff import Backoff
from tinkex_proxy.core.breaker import GateSettings
from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.trip import TripSettings
from tinkex_proxy.errors import BadConfiguration
from tinkex_proxy.reload import Outcome, Reloads
from tinkex_proxy.runtime.account import Account, AccountSettings
from tinkex_proxy.runtime.accounts import Accounts
from tinkex_proxy.runtime.aside import Aside
from tinkex_proxy.runtime.breakers import Breaker, BreakerSettings
from tinkex_proxy.runtime.clock import Clock, MonotonicClock
from tinkex_proxy.runtime.drain import Ending
from tinkex_proxy.runtime.events import Note
from tinkex_proxy.runtime.feed import BreakerFeed, Feed, SnapshotFeed
from tinkex_proxy.runtime.futures import Poller
from tinkex_proxy.runtime.gauges import breaker_number, readings, sessions
from tinkex_proxy.runtime.history import History
from tinkex_proxy.runtime.hub import Hub, Listener
from tinkex_proxy.runtime.intake import Intake
from tinkex_proxy.runtime.journal import Book, Journal, NoJournal, OnFailure, StoredJournal
from tinkex_proxy.runtime.lanes import Tools
from tinkex_proxy.runtime.ledger import Ledger, Retention
from tinkex_proxy.runtime.logs import LogListener, Logs
from tinkex_proxy.runtime.loop_lag import LoopLag
from tinkex_proxy.runtime.metrics import (
    JournalMetrics,
    Metrics,
    StateCollector,
    lag_metric,
    registry_of_process,
)
from tinkex_proxy.runtime.observer import Intervals, Observer
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.recognition import Assumed, Recognition
from tinkex_proxy.runtime.skew import Skew
from tinkex_proxy.runtime.snapshot import Snapshot
from tinkex_proxy.runtime.spans import Places
from tinkex_proxy.runtime.store import Store
from tinkex_proxy.runtime.submit import Submitter
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.timing_metrics import TimingMetrics
from tinkex_proxy.runtime.tracer import Tracer
from tinkex_proxy.runtime.transport import Transport
from tinkex_proxy.runtime.transports import named_transport, open_transport
from tinkex_proxy.runtime.upstream import Ask, Terms, Unanswered, Upstream
from tinkex_proxy.wire.datum import Flavour

if TYPE_CHECKING:
    from tinkex_proxy.runtime.otel import SpanExport

__all__ = ["Proxy", "build"]

HOSTED_DOMAIN: Final = "thinkingmachines.dev"
# A probe's lease outlasts every guarded call, so that only a lost probe ever loses its place.
LEASE_MARGIN_S: Final = 30.0
# How often an upstream that has never answered is asked whether it is there.
REACH_BACKOFF: Final = Backoff(base_s=0.5, cap_s=5.0)


# An hour of them, at some 3 kB each and 100 bytes for each model.
KEPT_SNAPSHOTS: Final = 60


@dataclass(slots=True)
class Proxy:
    """A whole proxy, built and not yet listening.

    Attributes:
        app: the ASGI application.
        services: what the plain calls work with.
        readiness: what `/health/ready` says.
        feed: what those see who follow the breakers.
        snapshot: the metrics, for those who run the proxy in their own process.
        snapshots: what those see who follow these.
        intervals: when they are told.
        ending: its end: who wants it, and how far it is.
        reloads: the configuration in force, and the way to another.
        journal: what outlasts it.
    """

    app: ASGIApp
    services: Services
    readiness: Readiness
    feed: Feed
    snapshot: Snapshot
    snapshots: Feed
    intervals: Intervals
    ending: Ending
    reloads: Reloads
    journal: Journal

    def pause(self) -> None:
        """Be ready no more, and go on: whoever looks at readiness sends new calls elsewhere."""
        self.readiness.draining = True

    async def drain(self) -> None:
        """Take no new calls, let nothing linger, wait for what runs; end who only follows."""
        self.readiness.draining = True
        services = self.services
        services.draining = True
        for account in services.accounts:
            account.drain()
        try:
            while services.ledger.running or services.open.count:
                await services.ledger.drained()
                await services.open.none()
        finally:
            self.feed.close()
            self.snapshots.close()

    async def cut_off(self) -> None:
        """End what still runs, where it is; with a journal it goes on in the next run.

        The journal is closed first: what it says of these calls is not over.
        """
        await self.journal.close()
        self.services.ledger.end_all()

    def release(self) -> None:
        """Answer those who are still held; nothing that comes later will reach them."""
        self.services.released.set()

    def reload(self) -> Outcome:
        """Read the configuration again and say in the log what came of it.

        Raises:
            BadConfiguration: it cannot be used; nothing has changed.
        """
        hub = self.services.hub
        try:
            outcome = self.reloads.reload()
        except BadConfiguration as error:
            said = "; ".join(error.problems)
            hub.tell(Note("error", f"the configuration was not reloaded, all stays: {said}"))
            raise
        hub.tell(Note("info", f"the configuration was reloaded: {outcome.sentence()}"))
        for warning in outcome.warnings:
            hub.tell(Note("warning", warning))
        return outcome


def build(
    settings: Settings,
    *,
    clock: Clock | None = None,
    reread: Callable[[], Settings] | None = None,
    store: Store | None = None,
) -> Proxy:
    """Build a proxy; opens no socket and starts no task.

    Args:
        settings: the configuration.
        clock: measures and sleeps; the machine's, if none is given.
        reread: reads the configuration's layers once more; None: there is nothing to be read.
        store: where its journal is; None for no journal.

    Raises:
        StoreError: the store cannot be read or written.
    """
    clock = clock or MonotonicClock()
    sight = _sight(settings, clock)
    hub, snapshot = sight.hub, sight.snapshot
    tasks = Tasks(lambda name, error: hub.tell(Note("error", f"task {name} failed", error)))
    transport = open_transport(
        settings.upstream.transport,
        _base_url(settings),
        connect_timeout_s=settings.upstream.connect_timeout_s,
    )
    salt = secrets.token_bytes(16)
    journal: Journal = NoJournal()
    if store is not None:
        on_failure = OnFailure(settings.journal.on_failure)
        journal = kept = StoredJournal(
            store, tasks=tasks, clock=clock, hub=hub, on_failure=on_failure
        )
        salt = kept.salt or salt
        kept.keep_salt(salt)
    recognition = Recognition(Assumed(settings.upstream.deduplicates))
    tracer = Tracer(on=sight.spans is not None, ratio=settings.tracing.sample_ratio)
    aside = Aside()
    makings = _Makings(settings, transport, tasks, clock, hub, journal, recognition, tracer, aside)
    key = settings.upstream.api_key

    def account_of(key_id: str, key: str | None) -> Account:
        account = makings.account(key_id, key)
        left = journal.take(key_id)
        account.restore(left)
        services.revive(account, left.calls)
        return account

    accounts = Accounts(
        account_of,
        default_key=None if key is None else key.get_secret_value(),
        key_required=(urlsplit(_base_url(settings)).hostname or "").endswith(HOSTED_DOMAIN),
        max_keys=settings.upstream.max_keys,
        salt=salt,
    )
    services = Services(
        accounts=accounts,
        ledger=Ledger(
            clock,
            tasks,
            _retention(settings),
            journal=journal,
            wall_clock=time.time,  # noqa: TID251 - ages of answers, over restarts
        ),
        clock=clock,
        hub=hub,
        intake=Intake(_bounds(settings), clock=clock, hub=hub),
        settings=_plain_settings(settings),
        tracer=tracer,
        aside=aside,
    )
    readiness = Readiness()
    reloads = Reloads(settings, reread or (lambda: settings))
    intervals = Intervals(snapshot, _interval_s(settings), clock=clock, hub=hub)
    shown = sight.feed, snapshot, sight.snapshots, intervals
    proxy = Proxy(_unbuilt, services, readiness, *shown, Ending(clock), reloads, journal)
    operations = _operations(proxy, sight)
    sight.registry.register(_states(proxy, operations, tasks, sight))
    snapshot.watch_gauge("tinkex.active_sessions", lambda: sessions(accounts))
    snapshot.watch_gauge("tinkex.circuit_breaker.state", lambda: breaker_number(accounts))
    sdk = SdkRoute(services, _sdk_settings(settings))
    app = make_app(
        operations,
        [*plain_routes(services), *sdk_routes(sdk, services), *_page(operations, sight)],
        lifespan=_lifespan(proxy, transport, tasks, sight),
        bind_host=settings.server.host,
        allowed_hosts=settings.server.allowed_hosts,
        hub=hub,
    )
    proxy.app = app
    _feed(reloads, services, makings, app, sdk)
    _feed_sight(reloads, sight.logs, intervals)
    return proxy


@dataclass(frozen=True, slots=True)
class _Sight:
    """What sees what happens, and the hub that tells it."""

    hub: Hub
    feed: BreakerFeed
    snapshot: Snapshot
    snapshots: SnapshotFeed
    history: History
    registry: CollectorRegistry
    skew: Skew
    lag: LoopLag | None
    spans: "SpanExport | None"
    logs: Logs


def _sight(settings: Settings, clock: Clock) -> _Sight:
    log = structlog.get_logger("tinkex_proxy")
    run = secrets.token_hex(4)
    now = time.time  # noqa: TID251 - shown to people, decides nothing
    feed = BreakerFeed(run, clock=clock, wall_clock=now)
    snapshots = SnapshotFeed(run, clock=clock, wall_clock=now, kept=KEPT_SNAPSHOTS)
    snapshot = Snapshot(clock, max_bins=settings.metrics.histogram_max_size)
    history = History(clock=clock, wall_clock=now)
    registry = registry_of_process()
    skew = Skew(now)
    listeners: list[Listener] = [LogListener(), feed, snapshots, Observer(snapshot), history]
    lag: LoopLag | None = None
    if settings.metrics.enabled:
        lag = LoopLag(clock, lag_metric(registry).observe)
        timing = TimingMetrics(registry, snapshot.refused)
        counting = Metrics(registry, snapshot.refused), JournalMetrics(registry)
        listeners += [*counting, timing, skew]
    spans = _span_export(settings, clock)
    if spans is not None:
        listeners.append(spans)
    hub = Hub(
        listeners,
        on_broken=lambda error: log.error("an event listener failed", error=repr(error)),
        later=clock.call_later,
    )
    if spans is not None:
        spans.note = hub.tell
    logs = Logs(settings.log.level, settings.log.format, hub)
    told = feed, snapshot, snapshots, history
    return _Sight(hub, *told, registry, skew, lag, spans, logs)


def _span_export(settings: Settings, clock: Clock) -> "SpanExport | None":
    """What sends spans, where they are wanted; the packages for it are loaded only then."""
    chosen, server = settings.tracing, settings.server
    if chosen.endpoint is None:
        return None
    from tinkex_proxy.runtime.otel import SpanExport, open_exporter  # noqa: PLC0415 - an extra

    said = "" if chosen.headers is None else chosen.headers.get_secret_value()
    pairs = [pair.partition("=") for pair in said.split(",") if pair]
    headers = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    listens = (server.host, server.port) if server.uds is None else (None, None)
    return SpanExport(
        open_exporter(chosen.endpoint, headers),
        Places(_base_url(settings), *listens),
        clock=clock,
        wall_clock=time.time,  # noqa: TID251 - spans are dated, nothing is decided by it
        resource={
            "service.name": "tinkex_proxy",
            "service.version": importlib.metadata.version("tinkex-proxy"),
            "service.instance.id": secrets.token_hex(8),
        },
    )


def _interval_s(settings: Settings) -> float:
    return settings.metrics.snapshot_interval_ms / 1000


async def _unbuilt(*_: object) -> None:
    """Stands for the application while it is built."""
    raise RuntimeError("there is no application yet")


def _feed(
    reloads: Reloads, services: Services, makings: "_Makings", guard: Guard, sdk: SdkRoute
) -> None:
    """Say who takes which settings when the configuration is read again."""
    accounts = services.accounts
    reloads.feed(_plain_settings, services.reconfigure)
    reloads.feed(_bounds, services.intake.reconfigure)
    reloads.feed(_retention, services.ledger.reconfigure)
    reloads.feed(_sdk_settings, sdk.reconfigure)
    reloads.feed(lambda s: s.server.allowed_hosts, guard.reconfigure)
    reloads.feed(lambda s: s.upstream.max_keys, lambda n: accounts.reconfigure(max_keys=n))
    reloads.feed(
        lambda s: (s, _account_settings(s), _breaker_settings(s)),
        lambda made: makings.reconfigure(accounts, *made),
    )
    ratio = services.tracer.reconfigure
    reloads.feed(lambda s: s.tracing.sample_ratio, lambda share: ratio(ratio=share))


def _feed_sight(reloads: Reloads, logs: Logs, intervals: Intervals) -> None:
    reloads.feed(_interval_s, intervals.reconfigure)
    reloads.feed(lambda s: s.log.level, lambda level: logs.reconfigure(level=level))
    reloads.feed(lambda s: s.log.format, lambda form: logs.reconfigure(form=form))


@dataclass(slots=True)
class _Makings:
    """What every account is made of."""

    settings: Settings
    transport: Transport
    tasks: Tasks
    clock: Clock
    hub: Hub
    journal: Journal
    recognition: Recognition
    tracer: Tracer
    aside: Aside

    def reconfigure(
        self,
        accounts: Iterable[Account],
        settings: Settings,
        of_accounts: AccountSettings,
        of_breakers: BreakerSettings,
    ) -> None:
        """Make accounts by these settings from now on, and give them to those there are."""
        self.settings, upstream = settings, settings.upstream
        for account in accounts:
            account.reconfigure(of_accounts)
            account.upstream.breaker.reconfigure(of_breakers)
            account.upstream.reconfigure(timeout_s=upstream.request_timeout_s)
            account.tools.submitter.reconfigure(patience_s=upstream.submit_retry_s)
            account.tools.poller.reconfigure(hold_s=upstream.poll_timeout_s)

    def account(self, key_id: str, key: str | None) -> Account:
        """Build the account of one key."""
        upstream_settings = self.settings.upstream
        host = urlsplit(_base_url(self.settings)).netloc
        breaker = Breaker(
            f"{host}-{key_id}".replace(":", "-"),
            _breaker_settings(self.settings),
            clock=self.clock,
            hub=self.hub,
            wall_clock=time.time,  # noqa: TID251 - shown to people, decides nothing
            draw=random.random,
        )
        upstream = Upstream(
            self.transport,
            key,
            breaker,
            clock=self.clock,
            hub=self.hub,
            terms=Terms(
                timeout_s=upstream_settings.request_timeout_s,
                retry_ratio=upstream_settings.retry_budget_ratio,
                retries_per_s=upstream_settings.retry_budget_per_s,
                tracer=self.tracer,
            ),
        )
        tools = Tools(
            submitter=Submitter(upstream, self.clock, patience_s=upstream_settings.submit_retry_s),
            poller=Poller(upstream, self.clock, hold_s=upstream_settings.poll_timeout_s),
            knows=partial(knows_model, upstream, self.clock),
            tasks=self.tasks,
            clock=self.clock,
            hub=self.hub,
            book=Book(key_id, self.journal),
            recognition=self.recognition,
            tracer=self.tracer,
            aside=self.aside,
        )
        return Account(key_id, upstream, tools, _account_settings(self.settings))


def _account_settings(settings: Settings) -> AccountSettings:
    batching, flavour = settings.batching, settings.upstream.flavour
    return AccountSettings(
        limits=Limits(
            linger_s=batching.window_ms / 1000,
            idle_s=batching.idle_flush_ms / 1000,
            max_requests=batching.max_batch_size,
            max_datums=batching.max_datums,
            max_bytes=batching.max_bytes,
            preferred_datums=tuple(batching.preferred_sizes),
        ),
        flavour=None if flavour == "auto" else Flavour(flavour),
        heartbeat_interval_s=settings.upstream.heartbeat_interval_s,
        coalesce=batching.enabled,
        keep_s=settings.calls.retention_s,
    )


def _plain_settings(settings: Settings) -> PlainSettings:
    return PlainSettings(
        body=BodyLimits(settings.server.max_body_bytes, settings.admission.body_timeout_s),
        default_timeout_s=settings.calls.default_timeout_s,
        extra_loss_fns=frozenset(settings.upstream.extra_loss_fns),
    )


def _sdk_settings(settings: Settings) -> SdkRouteSettings:
    return SdkRouteSettings(
        lanes=settings.sdk.mode == "lane",
        coalesce=settings.sdk.coalesce,
        request_timeout_s=settings.upstream.request_timeout_s,
    )


def _retention(settings: Settings) -> Retention:
    return Retention(
        keep_s=settings.calls.retention_s,
        max_answers=settings.calls.max_kept_answers,
        max_bytes=settings.calls.max_kept_bytes,
    )


def _bounds(settings: Settings) -> Bounds:
    chosen = settings.admission
    return Bounds(
        max_bytes=chosen.max_bytes,
        max_calls=chosen.max_calls,
        max_lane_depth=chosen.max_lane_depth,
    )


def _breaker_settings(settings: Settings) -> BreakerSettings:
    chosen = settings.circuit_breaker
    slowest = max(settings.upstream.request_timeout_s, settings.upstream.poll_timeout_s)
    return BreakerSettings(
        enabled=chosen.enabled,
        gate=GateSettings(
            trip=TripSettings(
                failure_threshold=chosen.failure_threshold,
                adaptive=chosen.adaptive_threshold,
                failure_rate=chosen.failure_rate,
                minimum_calls=chosen.minimum_calls,
                window_s=chosen.window_s,
                slow_s=None if chosen.slow_call_ms is None else chosen.slow_call_ms / 1000,
                slow_rate=chosen.slow_call_rate,
            ),
            open_for_s=chosen.timeout_ms / 1000,
            longest_open_s=chosen.max_timeout_ms / 1000,
            max_probes=chosen.half_open_max_calls,
            successes_to_close=chosen.success_threshold,
            probe_lease_s=slowest + LEASE_MARGIN_S,
        ),
    )


def _base_url(settings: Settings) -> str:
    return str(settings.upstream.base_url).rstrip("/")


def _operations(proxy: Proxy, sight: _Sight) -> Operations:
    services, settings = proxy.services, proxy.reloads.settings
    upstream = _base_url(settings)
    return Operations(
        accounts=services.accounts,
        clock=services.clock,
        intake=services.intake,
        readiness=proxy.readiness,
        scraped=sight.registry if settings.metrics.enabled else None,
        upstream=upstream,
        config=lambda: masked(proxy.reloads.settings),
        version={
            "version": importlib.metadata.version("tinkex-proxy"),
            "python": platform.python_version(),
            "transport": named_transport(settings.upstream.transport, _base_url(settings)),
            "upstream": upstream,
        },
        breakers=Breakers(
            upstream,
            lambda: [(account.key_id, account.upstream.breaker) for account in services.accounts],
            proxy.feed,
        ),
        snapshots=Snapshots(proxy.snapshot, proxy.snapshots),
        lifecycle=Lifecycle(
            ending=proxy.ending,
            running=partial(_running, services),
            reload=lambda: proxy.reload().told(),
        ),
        logs=sight.logs,
    )


def _page(operations: Operations, sight: _Sight) -> list[BaseRoute]:
    """The web page, and what it and `top` read."""
    dashboard = Dashboard(
        run=secrets.token_hex(4),
        history=sight.history,
        accounts=operations.accounts,
        breakers=operations.breakers,
        intake=operations.intake,
        clock=operations.clock,
        wall_clock=time.time,  # noqa: TID251 - shown to people, decides nothing
        obstacle=operations.readiness.obstacle,
        version=operations.version,
    )
    return [*page_router(read_files()).routes, *dashboard_router(dashboard).routes]


def _running(services: Services) -> dict[str, object]:
    """What the end waits for."""
    lanes = [m.driver.lane for a in services.accounts for m in a.models.values()]
    return {
        "calls_in_flight": services.ledger.running,
        "requests_open": services.open.count,
        "polls_held": services.polls.count,
        "open_batches": sum(1 for lane in lanes if lane.depth),
        "awaiting_results": sum(lane.owed for lane in lanes),
    }


def _states(proxy: Proxy, operations: Operations, tasks: Tasks, sight: _Sight) -> StateCollector:
    services, skew, spans = proxy.services, sight.skew, sight.spans

    def config_hash() -> str:
        told = msgspec.json.encode(operations.config(), order="sorted")
        return hashlib.sha256(told).hexdigest()

    return StateCollector(
        operations.breakers.snapshots,
        {
            **readings(services.accounts, services.ledger, services.intake, tasks, services.clock),
            "tinkex_proxy_inflight_requests": lambda: services.open.count + services.polls.count,
            "tinkex_proxy_upstream_clock_skew_seconds": lambda: (
                () if skew.seconds is None else skew.seconds
            ),
            "tinkex_proxy_trace_spans_total": lambda: () if spans is None else spans.counts(),
            "tinkex_proxy_series_refused_total": lambda: proxy.snapshot.refused.count,
        },
        {"version": str(operations.version["version"]), "python": platform.python_version()},
        config_hash,
    )


def _lifespan(
    proxy: Proxy, transport: Transport, tasks: Tasks, sight: _Sight
) -> Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]:
    services, readiness = proxy.services, proxy.readiness
    lag, spans = sight.lag, sight.spans

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        readiness.started = True
        tasks.spawn("reach the upstream", _reach(services, readiness))
        proxy.intervals.start()
        if lag is not None:
            lag.start()
        try:
            yield
        finally:
            if lag is not None:
                lag.stop()
            proxy.intervals.stop()
            await proxy.journal.close()  # first: what is ended by our end goes on in the next run
            for account in services.accounts:
                account.close()
            await tasks.cancel_all()
            services.aside.close()
            await transport.close()
            if spans is not None:
                await spans.close()  # last: ends are spans too

    return lifespan


async def _reach(services: Services, readiness: Readiness) -> None:
    """Ask the upstream whether it is there until it says so; it may start after us."""
    upstream = services.accounts.of_default().upstream
    ask = Ask(operation=Operation.PROBE, path="/api/v1/healthz", method="GET", timeout_s=5.0)
    attempt = 0
    while True:
        try:
            status = (await upstream.ask(ask)).status
        except Unanswered as silence:
            readiness.reason = f"the upstream does not answer: {silence.detail}"
        else:
            if status < 500:
                readiness.reached = True
                return
            readiness.reason = f"the upstream answers {status}"
        await services.clock.sleep(REACH_BACKOFF.delay_s(attempt, 0.9))
        attempt += 1
