"""Whether a call costs the same however much there is, and has been. Run by `make bench-flat`.

An upstream that costs next to nothing stands behind proxies that do all they do: lanes, journal (a
call has an Idempotency-Key), metrics. No call shares a request, because with few lanes more calls
would, and that is what coalescing saves, not what lanes cost. What a call costs is the processor
time of the proxy's process, read from the scheduler in nanoseconds, and the median of what callers
wait.

Four proxies with 1, 10, 100 and 1,000 models take turns; callers go from model to model. One more
serves 100,000 calls, and is compared on its way with one that is young, in turns with it too: a
machine that others use is faster at one time than at another.
"""

import argparse
import asyncio
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib as mpl
import msgspec
from matplotlib.figure import Figure

from tests.bench.metrics import Caller
from tests.bench.report import IMAGES, write_section
from tests.e2e.processes import running
from tests.processes import Process, processes

LANES = (1, 10, 100, 1_000)
SERVED = (10, 100, 1_000, 10_000, 100_000)
CALLERS = 8
TURNS = 7
CALLS = 800  # of a turn
YOUNG = 1_000  # calls after which all code has run and all caches are warm
WITHIN = 0.2
TOKENS = 16
READY_S = 30.0


class KeyedCaller(Caller):
    """One connection whose calls have an Idempotency-Key each."""

    async def train(self, model_id: str) -> None:
        """One `forward_backward` of one datum."""
        numbers = list(range(1, TOKENS + 1))
        datum = {"tokens": numbers, "targets": numbers}
        raw = msgspec.json.encode({"model_id": model_id, "data": [datum]})
        head = (
            "POST /v1/forward_backward HTTP/1.1\r\nhost: localhost\r\n"
            f"x-tinkex-coalesce: off\r\nidempotency-key: {uuid.uuid4().hex}\r\n"
            f"content-length: {len(raw)}\r\n\r\n"
        )
        await self.exchange(head.encode() + raw)


@dataclass
class Side:
    """One proxy, and what its turns came to.

    Attributes:
        process: its process.
        models: the ids of its models.
        work_us: what a call cost it, of each turn.
        waits_ms: the median that a caller waited, of each turn.
        served: the calls so far.
    """

    process: Process
    models: list[str] = field(default_factory=list)
    work_us: list[float] = field(default_factory=list)
    waits_ms: list[float] = field(default_factory=list)
    served: int = 0

    async def make(self, count: int) -> None:
        """Make models."""
        caller = await Caller.to(self.process.url)
        for _ in range(count):
            body = {"base_model": "sink", "rank": 4}
            made = msgspec.json.decode(await caller.ask("POST", "/v1/models", body))
            self.models.append(made["model_id"])
        caller.close()

    async def turn(self, calls: int) -> tuple[float, float]:
        """Serve some calls; gives microseconds of a processor for each, and their median wait."""
        callers = [await KeyedCaller.to(self.process.url) for _ in range(min(CALLERS, calls))]
        names = itertools.cycle(self.models)
        left = iter(range(calls))
        waits: list[float] = []

        async def go_on(caller: KeyedCaller) -> None:
            for _ in left:
                began = time.perf_counter()
                await caller.train(next(names))
                waits.append(time.perf_counter() - began)

        before = self._worked_ns()
        await asyncio.gather(*map(go_on, callers))
        work_us = (self._worked_ns() - before) / calls / 1e3
        for caller in callers:
            caller.close()
        self.served += calls
        return work_us, statistics.median(waits) * 1e3

    async def measured(self, calls: int) -> None:
        """One turn that counts."""
        work_us, wait_ms = await self.turn(calls)
        self.work_us.append(work_us)
        self.waits_ms.append(wait_ms)

    def _worked_ns(self) -> int:
        tasks = Path(f"/proc/{self.process.popen.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


@contextlib.contextmanager
def proxies() -> Iterator["Starter"]:
    """A sink, and what starts proxies before it."""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(
            running(
                "sink",
                lambda port: [sys.executable, "-m", "tests.bench.compare.sink", str(port)],
                {},
                lambda server: server.wait_for_answer("/api/v1/healthz", READY_S),
            )
        )
        yield Starter(stack, stack.enter_context(processes()), sink.url)


@dataclass
class Starter:
    """Starts proxies."""

    stack: contextlib.ExitStack
    start: object
    upstream: str

    async def side(self, models: int) -> Side:
        """A proxy with so many models."""
        state = self.stack.enter_context(tempfile.TemporaryDirectory())
        place = ("--upstream.base-url", self.upstream, "--journal.state-dir", state)
        made = Side(self.start("serve", "--port", "0", *place, "--log.level", "error"))
        await made.make(models)
        return made


async def by_lanes() -> list[Side]:
    """A proxy for each number of lanes, in turns."""
    with proxies() as starter:
        sides = [await starter.side(count) for count in LANES]
        for side in sides:
            await side.turn(max(YOUNG, len(side.models)))
        for turn in range(TURNS):
            for side in sides if turn % 2 else reversed(sides):
                await side.measured(CALLS)
    return sides


@dataclass(frozen=True)
class Age:
    """One proxy compared with a young one.

    Attributes:
        served: calls that it had served.
        work_us: what a call cost it, of each turn.
        young_us: what a call cost the young one, of each turn.
        waits_ms: the median that its callers waited, of each turn.
    """

    served: int
    work_us: Sequence[float]
    young_us: Sequence[float]
    waits_ms: Sequence[float]

    @property
    def ratio(self) -> float:
        """What a call costs it, as a share of what it costs the young one."""
        pairs = zip(self.work_us, self.young_us, strict=True)
        return statistics.median(old / young for old, young in pairs)


async def by_calls(most: int) -> list[Age]:
    """One proxy on its way to so many calls."""
    ages = []
    with proxies() as starter:
        old = await starter.side(1)
        for served in (count for count in SERVED if count <= most):
            with proxies() as young_starter:
                young = await young_starter.side(1)
                await young.turn(YOUNG)
                await old.turn(served - old.served)
                calls = min(CALLS, max(20, served))
                old.work_us.clear()
                old.waits_ms.clear()
                for turn in range(TURNS if served >= YOUNG else 1):
                    for side in (old, young) if turn % 2 else (young, old):
                        await side.measured(calls)
            ages.append(Age(served, [*old.work_us], young.work_us, [*old.waits_ms]))
            print(f"after {served:,} calls: {ages[-1].ratio:.2f} times a young one's", flush=True)
    return ages


def picture(sides: Sequence[Side], ages: Sequence[Age]) -> Figure:
    """What a call costs, by lanes and by calls served, against the least of each."""
    made = Figure(figsize=(7.5, 3.2), layout="constrained")
    left, right = made.subplots(1, 2, sharey=True)
    first = statistics.median(sides[0].work_us)
    for axes, xs, ys, label in (
        (left, LANES, [[us / first for us in side.work_us] for side in sides], "lanes"),
        (
            right,
            [age.served for age in ages],
            [[a / b for a, b in zip(age.work_us, age.young_us, strict=True)] for age in ages],
            "calls served",
        ),
    ):
        middles = [statistics.median(each) for each in ys]
        below = [middle - min(each) for middle, each in zip(middles, ys, strict=True)]
        above = [max(each) - middle for middle, each in zip(middles, ys, strict=True)]
        axes.axhspan(1 - WITHIN, 1 + WITHIN, color="#e6efe9")
        axes.errorbar(xs, middles, [below, above], marker="o", color="#0b6e4f", capsize=3)
        axes.set(xscale="log", xlabel=label, ylim=(0, 2))
        axes.spines[["top", "right"]].set_visible(False)
    left.set_ylabel("processor time of a call, relative")
    return made


def table(sides: Sequence[Side], ages: Sequence[Age]) -> tuple[str, bool]:
    """As Markdown, and whether all is flat."""
    lines = [("", "processor time a call", "p50", "relative", "no dearer (≤ 1.2)"), ("---",) * 5]
    flat = True
    bare = [statistics.median(side.work_us) for side in sides]
    for side, us in zip(sides, bare, strict=True):
        ratio = statistics.median(
            one / other for one, other in zip(side.work_us, sides[0].work_us, strict=True)
        )
        lines.append(_row(f"{len(side.models):,} lanes", us, side.waits_ms, ratio))
        flat &= ratio <= 1 + WITHIN
    for age in ages:
        us = statistics.median(age.work_us)
        lines.append(_row(f"after {age.served:,} calls", us, age.waits_ms, age.ratio))
        flat &= age.ratio <= 1 + WITHIN
    return "\n".join(f"| {' | '.join(line)} |" for line in lines), flat


def _row(what: str, us: float, waits_ms: Sequence[float], ratio: float) -> tuple[str, ...]:
    good = "yes" if ratio <= 1 + WITHIN else "**no**"
    return what, f"{us:,.0f} µs", f"{statistics.median(waits_ms):.1f} ms", f"{ratio:.2f}", good


def main() -> None:
    """Print the table; with --write put it and its picture into the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=SERVED[-1], help="calls of the one that ages")
    parser.add_argument("--write", action="store_true", help="note the figures")
    args = parser.parse_args()
    sides = asyncio.run(by_lanes())
    ages = asyncio.run(by_calls(args.most))
    made, flat = table(sides, ages)
    print(made)
    print("flat" if flat else "NOT flat")
    if not args.write:
        return
    with mpl.rc_context({"svg.hashsalt": "tinkex-proxy", "svg.fonttype": "none", "font.size": 9}):
        drawn = picture(sides, ages)
        drawn.savefig(IMAGES / "performance-flat.svg", metadata={"Date": None})
    said = (
        "## Cost as work grows\n\n`make bench-flat`: small `forward_backward` calls with an "
        f"Idempotency-Key, each a request of its own, {CALLERS} callers, before an upstream that "
        "costs next to nothing. "
        "Relative to one lane, and to a proxy that has served 1,000 calls; each in turns with "
        "that. Range of the turns in the picture. On one lane callers wait for one another, and to "
        "be woken costs something: more lanes are cheaper.\n\n"
        "![Processor time of a call by lanes and by calls served](images/performance-flat.svg)\n\n"
    )
    write_section("flat", said + made)


if __name__ == "__main__":
    main()
