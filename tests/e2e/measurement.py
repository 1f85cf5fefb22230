"""Five ways to bring eight datums to one model, timed side by side.

Repeats are interleaved, way after way, so that a slow minute of the machine falls on all of them;
the median is reported. Every shape that the upstream may see is computed once before, because a
JAX upstream compiles each for seconds. An `optim_step` after each measured call, outside the
measurement, keeps the accumulated work the same. The range stands beside the median: an upstream
that works in ticks answers a little before or after one, and five repeats do not average that out.
"""

import asyncio
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.e2e.plain import UNCOALESCED, Json, Plain, datums
from tests.e2e.processes import ROOT

CALLERS = 8
REPEATS = 5
PAGE = ROOT / "docs" / "coalescing.md"
ONE_BY_ONE = "8 calls, each awaited"
CONCURRENT = "8 concurrent, uncoalesced"
COALESCED = "8 concurrent, coalesced"
BATCH = "one `forward_backward_batch` of 8"
SINGLE = "1 call with 8 datums"
WAYS = (ONE_BY_ONE, CONCURRENT, COALESCED, BATCH, SINGLE)

Way = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Row:
    """The seconds that each way took on one upstream at one length."""

    upstream: str
    tokens: int
    seconds: dict[str, list[float]]
    splits: list[str]

    def cells(self) -> list[str]:
        """The row as the table shows it."""
        times = [_milliseconds(self.seconds[way]) for way in WAYS]
        return [self.upstream, str(self.tokens), *times, statistics.mode(self.splits)]


@dataclass(slots=True)
class Report:
    """What has been measured in this run."""

    rows: list[Row] = field(default_factory=list)

    def publish(self) -> None:
        """Print the table; write the page only when asked, so that a check changes no file."""
        if not self.rows:
            return
        print(f"\n{self.table()}\n", flush=True)
        if os.environ.get("TINKEX_E2E_WRITE_DOCS") == "1":
            PAGE.write_text(_PAGE.format(repeats=REPEATS, table=self.table()))
            print(f"written to {PAGE.relative_to(ROOT)}", flush=True)

    def table(self) -> str:
        """All rows as a Markdown table."""
        head = ["upstream", "tokens", *WAYS, "most often coalesced as"]
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *[row.cells() for row in self.rows]]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


async def measure(plain: Plain, model_id: str, upstream: str, tokens: int) -> Row:
    """Time the five ways at one length."""
    data = datums(CALLERS, tokens)
    splits: list[str] = []
    ways = _ways(plain, model_id, data, splits)
    await _warm_up(plain, model_id, data, ways)
    splits.clear()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(REPEATS):
        for name in WAYS:
            started = time.perf_counter()
            await ways[name]()
            seconds[name].append(time.perf_counter() - started)
            await plain.step(model_id)
    return Row(upstream, tokens, seconds, splits)


async def _warm_up(plain: Plain, model_id: str, data: list[Json], ways: dict[str, Way]) -> None:
    for count in range(1, CALLERS + 1):
        await plain.forward_backward(model_id, data[:count])
    for way in ways.values():
        await way()
    await plain.step(model_id)


def _ways(plain: Plain, model_id: str, data: list[Json], splits: list[str]) -> dict[str, Way]:
    async def one_by_one() -> None:
        for datum in data:
            await plain.forward_backward(model_id, [datum])

    async def concurrent() -> None:
        calls = [plain.forward_backward(model_id, [datum], UNCOALESCED) for datum in data]
        await asyncio.gather(*calls)

    async def coalesced() -> None:
        answers = await asyncio.gather(
            *[plain.forward_backward(model_id, [datum]) for datum in data]
        )
        sizes = {answer["batch"]["id"]: answer["batch"]["requests"] for answer in answers}
        splits.append(" + ".join(str(size) for size in sorted(sizes.values())))

    async def batch() -> None:
        calls: list[Json] = [{"model_id": model_id, "data": [datum]} for datum in data]
        answer = await plain.post("forward_backward_batch", {"requests": calls})
        assert [result["status"] for result in answer["results"]] == ["ok"] * CALLERS

    async def single() -> None:
        await plain.forward_backward(model_id, data)

    return dict(zip(WAYS, (one_by_one, concurrent, coalesced, batch, single), strict=True))


def _milliseconds(seconds: list[float]) -> str:
    median, low, high = (
        each * 1e3 for each in (statistics.median(seconds), min(seconds), max(seconds))
    )
    return f"{median:,.0f} ({low:,.0f}-{high:,.0f})"


_PAGE = """\
# What coalescing gains, and where it does not

Measured by `make e2e` against real upstreams: SkyRL's Tinker server with a tiny Qwen3 on two CPU
cores, through the proxy's `/v1`. Eight datums are brought to one model in five ways; milliseconds,
median (least-most) of {repeats} interleaved repeats after warm-up. `make e2e
TINKEX_E2E_WRITE_DOCS=1` writes this page anew.

{table}

How to read it:

* **Awaiting each call is what costs.** Every call pays the upstream's tick (SkyRL looks for work
  every 100 ms) and a poll. A program that has all its datums at hand should send them in one call,
  or in one `forward_backward_batch`.
* **Callers that are concurrent gain a tick or two at most**, because SkyRL itself gathers what is
  pending into one batch. At 16 tokens that is a large part of the time, at 500 a small one. So the
  proxy never holds a lone call, and never delays a batch past what that can gain.
* **A difference of one tick between the last three ways says nothing**: it is where in the
  upstream's tick a call happened to fall. The ranges show it.
* **"micro batch 1"** is SkyRL's `train_micro_batch_size: 1`: each datum is computed in the same
  shape whatever came with it. By default a JAX upstream compiles each new (batch size, length
  bucket) for some seconds, once; the warm-up keeps that out of these figures.
* The same run asserts that eight coalesced callers and one call with the eight datums take the same
  step: bit for bit with micro batch 1 and the same order, to a relative 1e-6 otherwise, on
  `grad_norm` and on the log probabilities afterwards.
"""
