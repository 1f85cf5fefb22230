"""How long the event loop is held up while 5 MB bodies go through. Run by `make bench-lag`.

The proxy's own metric says it (`tinkex_proxy_event_loop_lag_seconds`), looked at 200 times a second
(`looking.py`). It contains what the machine does to every process: so a witness beside, an event
loop that does nothing, is looked at as often at the same time; and two bounds are told of what the
proxy itself did to its loop (`looking.py`). There is a verdict on the metric as it is, and one on
what the proxy did to its loop at most.

The upstream is a sink that answers at once with two numbers for each token.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import httpx
import msgspec

from tests.bench.compare.calls import LARGE, Call
from tests.bench.compare.running import sink
from tests.bench.lag.looking import AT_LEAST, AT_MOST, LAG
from tests.bench.metrics import Caller
from tests.bench.micro.bodies import TOKENS, datum
from tests.bench.report import write_section
from tests.e2e.processes import ROOT, Server, running

MOST_MS = 5.0
DATUMS = 148  # 5 MB of JSON
READY_S = 30.0
QUANTILES = (0.5, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Load:
    """What a proxy is kept busy with.

    Attributes:
        name: what it is, to people.
        call: what is called; None: nothing.
        callers: how many do, each with one call after another.
        mode: the proxy's `sdk.mode`.
    """

    name: str
    call: Call | None
    callers: int
    mode: str = "lane"


def loads(model_id: str) -> list[Load]:
    """All that are measured."""
    tokens = list(range(1, 17))
    small = {"model_id": model_id, "data": [{"tokens": tokens, "targets": tokens}]}
    large = {"model_id": model_id, "data": [datum(TOKENS, seed) for seed in range(DATUMS)]}
    plain = "/v1/forward_backward"
    return [
        Load("nothing", None, 0),
        Load("plain, one datum, 16 callers", Call(plain, msgspec.json.encode(small)), 16),
        Load("plain, 5 MB, one caller", Call(plain, msgspec.json.encode(large)), 1),
        Load("plain, 5 MB, 4 callers", Call(plain, msgspec.json.encode(large)), 4),
        Load("SDK, relayed, 5 MB, 4 callers", LARGE, 4, mode="transparent"),
    ]


@contextmanager
def proxy(upstream: str, mode: str) -> Iterator[Server]:
    """A proxy that looks often."""
    with tempfile.TemporaryDirectory() as state:
        options = ["--upstream.base-url", upstream, "--sdk.mode", mode, "--log.level", "error"]
        options += ["--journal.state-dir", state]

        def command(port: int) -> list[str]:
            program = [sys.executable, "-m", "tests.bench.lag.looking"]
            return [*program, "serve", "--port", str(port), *options]

        def ready(server: Server) -> None:
            server.wait_for_answer("/health/live", READY_S)

        with running("the proxy", command, {}, ready) as server:
            yield server


Looks = Mapping[float, float]  # by upper bound in ms, how many were within


def looks(server: Server, name: str) -> Looks:
    """A histogram of the proxy's, as it is now."""
    text = httpx.get(f"{server.url}/metrics", trust_env=False).text
    lines = [line for line in text.splitlines() if line.startswith(f"{name}_bucket")]
    pairs = [(line.partition('le="')[2].partition('"')[0], line.split()[-1]) for line in lines]
    return {float(bound) * 1e3: float(count) for bound, count in pairs}


def since(before: Looks, after: Looks) -> Looks:
    """What has come between two readings."""
    return {bound: count - before[bound] for bound, count in after.items()}


def quantile(found: Looks, share: float) -> float:
    """The bound within which so many were."""
    whole = max(found.values())
    return next(bound for bound, count in sorted(found.items()) if count >= share * whole)


def beyond(found: Looks) -> float:
    """The share that was later than is wanted."""
    return 1 - found[MOST_MS] / max(found.values())


async def drive(url: str, load: Load, seconds: float) -> float:
    """Call for a while; gives the calls a second."""
    if load.call is None:
        await asyncio.sleep(seconds)
        return 0.0
    body = load.call.body
    head = (
        f"POST {load.call.path} HTTP/1.1\r\nhost: localhost\r\n"
        f"content-type: {load.call.content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    request, began, done = head.encode() + body, time.perf_counter(), 0

    async def go_on(caller: Caller) -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await caller.exchange(request)
            done += 1

    callers = [await Caller.to(url) for _ in range(load.callers)]
    await asyncio.gather(*map(go_on, callers))
    for caller in callers:
        caller.close()
    return done / (time.perf_counter() - began)


def measured(server: Server, load: Load, seconds: float) -> tuple[str, ...]:
    """One row."""
    asyncio.run(drive(server.url, load, 2.0))  # connections, memory, caches
    program = [sys.executable, "-m", "tests.bench.lag.looking", "--witness", str(seconds)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, cwd=ROOT, text=True) as witness:
        before = {name: looks(server, name) for name in (LAG, AT_MOST, AT_LEAST)}
        rate = asyncio.run(drive(server.url, load, seconds))
        found = [since(then, looks(server, name)) for name, then in before.items()]
        idle = {bound * 1e3: float(count) for bound, count in json.loads(witness.stdout.read())}
    cells = [
        f"{', '.join(f'{quantile(each, share):g}' for share in QUANTILES)} ({beyond(each):.2%})"
        for each in (*found, idle)
    ]
    good = ["yes" if quantile(each, 0.999) <= MOST_MS else "**no**" for each in found[:2]]
    return (load.name, f"{rate:.3g}", *cells, *good)


def table(seconds: float) -> str:
    """As Markdown."""
    head = (
        "load",
        "calls/s",
        "late",
        "itself at most",
        "itself at least",
        "a witness",
        f"late, p99.9 ≤ {MOST_MS:g}",
        f"itself at most, p99.9 ≤ {MOST_MS:g}",
    )
    lines = [head, ("---",) * len(head)]
    with ExitStack() as stack:
        upstream = stack.enter_context(sink("--tokens", str(TOKENS)))
        up = {
            mode: stack.enter_context(proxy(upstream.url, mode)) for mode in ("lane", "transparent")
        }
        made = httpx.post(
            f"{up['lane'].url}/v1/models",
            json={"base_model": "sink", "rank": 4},
            trust_env=False,
        )
        for load in loads(made.json()["model_id"]):
            lines.append(measured(up[load.mode], load, seconds))
            print(" | ".join(lines[-1]), flush=True)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the table; with --write put it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load")
    parser.add_argument("--write", action="store_true", help="note the figures")
    args = parser.parse_args()
    made = table(args.seconds)
    print(made)
    if args.write:
        said = (
            "## How long the event loop is held up\n\n`make bench-lag`: bodies of 5 MB (148 datums "
            "of 2,048 tokens) before an upstream that costs next to nothing and answers with two "
            "numbers for each token. The loop is looked at 200 times a second: told are the "
            "milliseconds by which a timer was late, p50, p99 and p99.9, and in brackets how many "
            f"looks were later than {MOST_MS:g} ms. The callers and the upstream share the "
            "machine's processors with the proxy. What it does to its loop by itself lies between "
            "two bounds: *at most* is the lag without the time in which the loop's thread could "
            "have run and had no processor, *at least* is without that of all its threads. *A "
            "witness* is an event loop in another process, at the same time, that does nothing."
            "\n\n"
        )
        write_section("lag", said + made)


if __name__ == "__main__":
    main()
