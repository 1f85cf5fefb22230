"""What metrics cost: one update, and the throughput of a whole proxy. By `make bench-metrics`.

Updates are timed by themselves, in microseconds. For the whole, two proxies stand in front of one
sandbox, one with all that is observed and one with `metrics.enabled = false` and no log, and are
driven in turns, so that what else the machine does hits both.

A proxy is one thread: what it takes of a processor for a request is what bounds its throughput. So
that is what is compared; requests a second are told beside it, but the driver, the sandbox and
whoever else is there have the same processors, and where the upstream is the bound they say
nothing.
"""

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

import msgspec
import psutil
from prometheus_client import CollectorRegistry

from tests.processes import Process, processes
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.runtime.clock import MonotonicClock
from tinkex_proxy.runtime.events import BatchLeft, CallEnded, Exchange, RequestEnded
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.metrics import Children, Metrics
from tinkex_proxy.runtime.observer import Observer
from tinkex_proxy.runtime.series import DURATION_BUCKETS, Refused
from tinkex_proxy.runtime.snapshot import Snapshot
from tinkex_proxy.runtime.tallies import Ladder

GROUPS = 1000
TURNS = 9
SECONDS = 3.0
CALLERS = 8
MOST_US = 1.0
MOST_COST = 0.05


def measured(name: str, one: Callable[[], object], updates: int = 1) -> float:
    """Print the microseconds of one update, by the hundred; gives their median."""
    groups = []
    for _ in range(GROUPS):
        began = time.perf_counter()
        for _ in range(100):
            one()
        groups.append((time.perf_counter() - began) / 100 / updates * 1e6)
    least, median, p95 = min(groups), statistics.median(groups), sorted(groups)[-GROUPS // 20]
    print(f"{name:38s} least {least:5.2f} us, p50 {median:5.2f} us, p95 {p95:5.2f} us")
    return median


def updates() -> bool:
    """Print what each kind of update costs; whether each is within its bound."""
    registry = CollectorRegistry()
    metrics, snapshot = Metrics(registry), Snapshot(MonotonicClock(), max_bins=1000)
    observer = Observer(snapshot)
    ladder = Ladder("h", "Help.", ("a",), buckets=DURATION_BUCKETS, registry=registry)
    bound = Children(ladder, Refused())
    durations = itertools.cycle([0.0007 * 1.37**step for step in range(45)])
    call = CallEnded("forward_backward", "ok", 18.0)
    exchange = Exchange("submit", 200, Outcome.SUCCESS, 0.02)
    left = BatchLeft("m", 1, "idle", 4, 9, 0.001, 5000)
    request = RequestEnded("/v1/forward_backward", "POST", 200, 0.02, wanted=True)
    counter = metrics._calls
    measured("nothing", lambda: next(durations))
    medians = [
        measured("counter, bound", lambda: counter["forward", "ok"].inc()),  # noqa: PLW0108 - look-up too
        measured("histogram, bound, 0.7 ms to 760 s", lambda: bound["x"].observe(next(durations))),
        measured("snapshot, counter", lambda: snapshot.increment("c")),
        measured("snapshot, gauge", lambda: snapshot.set_gauge("g", 1)),
        measured("snapshot, histogram", lambda: snapshot.record_histogram("h", next(durations))),
        measured("snapshot, summary", lambda: snapshot.record_summary("s", 1.5, "m")),
    ]
    for name, listeners, event, many in (
        ("a call ended (2 updates)", [metrics], call, 2),
        ("an exchange ended (2 updates)", [metrics], exchange, 2),
        ("a batch left (5 updates)", [metrics], left, 5),
        ("a request was answered (5 updates)", [metrics, observer], request, 5),
    ):
        # Those that are gathered are told, as many at a time as it is in earnest under load.
        hub = Hub(listeners, print, lambda *_: None)
        measured(name, partial(hub.tell, event), many)
    return max(medians) <= MOST_US


@dataclass
class Side:
    """One of the two, and what was measured of it."""

    name: str
    url: str
    process: psutil.Process
    per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, running: Process) -> "Side":
        """One that runs."""
        return cls(name, running.url, psutil.Process(running.popen.pid))


class Caller:
    """One connection that makes one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, url: str) -> "Caller":
        parts = urlsplit(url)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port))

    async def ask(self, method: str, path: str, body: object = None) -> bytes:
        raw = b"" if body is None else msgspec.json.encode(body)
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(raw)}\r\n\r\n"
        return await self.exchange(head.encode() + raw)

    async def exchange(self, request: bytes) -> bytes:
        """Send a request as it goes over the wire; gives the body of its answer."""
        self._writer.write(request)
        got = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        assert b" 200 " in got.partition(b"\r\n")[0], got
        length = int(got.partition(b"content-length: ")[2].split(b"\r\n")[0])
        return await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


async def drive(side: Side, method: str, path: str, body: object, seconds: float) -> None:
    """Keep a proxy busy for a while, and note what it did."""
    callers = [await Caller.to(side.url) for _ in range(CALLERS)]
    before, began = side.process.cpu_times(), time.perf_counter()

    async def ask_on(caller: Caller) -> int:
        done = 0
        while time.perf_counter() - began < seconds:
            await caller.ask(method, path, body)
            done += 1
        return done

    done = sum(await asyncio.gather(*map(ask_on, callers)))
    took, after = time.perf_counter() - began, side.process.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    side.per_s.append(done / took)
    side.cpu_us.append(cpu_s / done * 1e6)
    for caller in callers:
        caller.close()


async def compared(
    what: str, sides: list[Side], method: str, path: str, bodies: list[object]
) -> float:
    """Drive both in turns; print and give what observing costs, as a share of the throughput."""
    for side, body in zip(sides, bodies, strict=True):
        side.per_s.clear()
        side.cpu_us.clear()
        await drive(side, method, path, body, 1.0)  # connections, caches
        side.per_s.clear()
        side.cpu_us.clear()
    for turn in range(TURNS):
        order = list(zip(sides, bodies, strict=True))
        for side, body in order if turn % 2 else reversed(order):
            await drive(side, method, path, body, SECONDS)
    for side in sides:
        rate, cpu = statistics.median(side.per_s), statistics.median(side.cpu_us)
        low, high = min(side.per_s), max(side.per_s)
        print(
            f"{what:18s} {side.name:3s} {rate:6.0f}/s ({low:.0f} to {high:.0f}), {cpu:6.0f} us each"
        )
    on, off = sides
    more = [a / b - 1 for a, b in zip(on.cpu_us, off.cpu_us, strict=True)]
    lost = [1 - a / b for a, b in zip(on.per_s, off.per_s, strict=True)]
    cost = statistics.median(more)
    fewer = statistics.median(lost)
    print(f"{what:18s} {cost:+.1%} of processor time, {fewer:+.1%} fewer requests a second")
    return 1 - 1 / (1 + cost)


async def whole() -> bool:
    """Print what observing costs a proxy; whether that is within its bound."""
    quiet = ("--metrics.enabled", "false", "--log.level", "error")
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as other,
        processes() as start,
    ):
        upstream = start("sandbox", "--port", "0").url
        sides = [
            Side.of("on", start(*_serve(upstream, one))),
            Side.of("off", start(*_serve(upstream, other), *quiet)),
        ]
        steps = []
        for side in sides:
            caller = await Caller.to(side.url)
            made = await caller.ask("POST", "/v1/models", {"base_model": "sandbox/tiny-1"})
            model_id = msgspec.json.decode(made)["model_id"]
            datum = {"tokens": list(range(64)), "targets": list(range(1, 65))}
            steps.append({"model_id": model_id, "data": [datum]})
            caller.close()
        training = await compared("forward_backward", sides, "POST", "/v1/forward_backward", steps)
        # The worst case: a request that does next to nothing.
        listing = await compared("list models", sides, "GET", "/v1/models", [None, None])
    print(
        f"a call that does nothing costs {listing:+.1%}; the bound is about work: {MOST_COST:.0%}"
    )
    return training <= MOST_COST


def _serve(upstream: str, state: str) -> tuple[str, ...]:
    place = ("--upstream.base-url", upstream, "--journal.state-dir", state)
    return ("serve", "--port", "0", *place)


def main() -> None:
    """Print all; exit 1 beyond a bound."""
    quick = updates()
    cheap = asyncio.run(whole())
    print(f"an update takes {'at most' if quick else 'MORE THAN'} {MOST_US:g} us at the median")
    print(
        f"observing costs {'at most' if cheap else 'MORE THAN'} {MOST_COST:.0%} of the throughput"
    )
    sys.exit(0 if quick and cheap else 1)


if __name__ == "__main__":
    main()
