"""What the journal costs: the same calls with and without. Run by `make bench-journal`.

A sandbox and two proxies before it, as processes. Its engine answers in cycles of 100 ms, which is
quick for a trainer, and of 1 ms, where all there is to measure is work on a busy machine.

Callers send small `forward_backward` calls under an `Idempotency-Key`, one after another. With a
model of its own for each nothing is shared: for the journal the worst there is, as each call is a
request of its own that it has to know before it is sent, and an answer that it has to keep. With
eight callers on a model they share requests, as they are meant to.

The proxies take turns, and the ratio is taken of each pair of turns, because a machine that others
use too is faster at one time than at another.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyqwest

from tests.processes import Process, processes

HEADERS = {"content-type": "application/json"}
LENGTH = 16
# Before anything is counted: connections, code that is run for the first time, the upstream's word.
WARM_UP_S = 1.0
# Callers at once, and the models that they train: one each, where nothing is shared, and fewer.
LOADS = ((1, 1), (16, 16), (64, 64), (64, 8))


@dataclass(frozen=True)
class Turn:
    """What one turn came to.

    Attributes:
        rate: calls per second.
        work_us: what the proxy's process worked for each call, microseconds of a processor.
        p50_ms: how long a call took.
    """

    rate: float
    work_us: float
    p50_ms: float


class Side:
    """A proxy, with or without a journal.

    Args:
        running: its process.
        transport: takes the calls there.
    """

    def __init__(self, running: Process, transport: pyqwest.HTTPTransport) -> None:
        self._process, self._url = psutil.Process(running.popen.pid), running.url
        self._client = pyqwest.Client(transport)
        self._numbers = itertools.count()
        self._name = uuid.uuid4().hex
        self._models: list[str] = []

    async def ask(self, path: str, body: object, **headers: str) -> dict[str, object]:
        """One call."""
        named = HEADERS | {name.replace("_", "-"): value for name, value in headers.items()}
        content = json.dumps(body).encode()
        answer = await self._client.execute("POST", self._url + path, named, content)
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered {answer.status}: {bytes(answer.content)!r}")
        fields: dict[str, object] = json.loads(bytes(answer.content))
        return fields

    async def prepare(self, count: int) -> None:
        """Have so many models."""
        while len(self._models) < count:
            made = await self.ask("/v1/models", {"base_model": "sandbox/tiny-1", "rank": 4})
            self._models.append(str(made["model_id"]))

    async def load(self, callers: int, models: int, seconds: float) -> Turn:
        """Call for so long, so many at once on so many models."""
        await self.prepare(models)
        took: list[float] = []
        worked, began = self._worked_s(), time.perf_counter()
        await asyncio.gather(
            *(
                self._call(self._models[number % models], began + seconds, took)
                for number in range(callers)
            )
        )
        lasted = time.perf_counter() - began
        return Turn(
            rate=len(took) / lasted,
            work_us=1e6 * (self._worked_s() - worked) / len(took),
            p50_ms=1e3 * statistics.median(took),
        )

    def _worked_s(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

    async def _call(self, model_id: str, ends: float, took: list[float]) -> None:
        tokens = list(range(1, LENGTH + 1))
        body = {"model_id": model_id, "data": [{"tokens": tokens, "targets": tokens}]}
        while (began := time.perf_counter()) < ends:
            key = f"{self._name}-{next(self._numbers)}"
            await self.ask("/v1/forward_backward", body, idempotency_key=key)
            took.append(time.perf_counter() - began)


@contextlib.contextmanager
def both(folder: Path, sync: str, tick_ms: int = 1) -> Iterator[tuple[Side, Side]]:
    """One without and one with a journal, before one sandbox."""
    transport = pyqwest.HTTPTransport(pool_max_idle_per_host=1000)
    state = {"TINKEX_PROXY_STATE_DIR": str(folder)}
    with processes() as start:
        upstream = start("sandbox", "--port", "0", "--tick-ms", str(tick_ms)).url
        serve = ("serve", "--port", "0", "--upstream.base-url", upstream, "--log.level", "error")
        without = start(*serve, "--journal.enabled", "false", **state)
        kept = start(*serve, "--journal.sync", sync, **state)
        yield Side(without, transport), Side(kept, transport)


def row(name: str, unit: str, pairs: Sequence[tuple[float, float]]) -> None:
    """Print medians, and the median change of the pairs with its range."""
    changes = sorted(100 * (kept / without - 1) for without, kept in pairs)
    without, kept = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"| {name} | {without:,.1f} {unit} | {kept:,.1f} {unit} | "
        f"{statistics.median(changes):+.1f} % ({changes[0]:+.1f} … {changes[-1]:+.1f}) |",
        flush=True,
    )


async def measure(sides: tuple[Side, Side], rounds: int, seconds: float) -> None:
    """Print the table, row by row."""
    print("| | without | with | change (range) |\n|---|---|---|---|", flush=True)
    for callers, models in LOADS:
        for side in sides:
            await side.load(callers, models, WARM_UP_S)
        pairs = []
        for number in range(rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            turns = {at: await sides[at].load(callers, models, seconds) for at in order}
            pairs.append((turns[0], turns[1]))
        name = f"{callers} callers" if callers > 1 else "a lone caller"
        name += f" on {models} models" if models < callers else ""
        row(f"{name}: calls", "/s", [(a.rate, b.rate) for a, b in pairs])
        row(f"{name}: work of a call", "µs", [(a.work_us, b.work_us) for a, b in pairs])
        row(f"{name}: p50", "ms", [(a.p50_ms, b.p50_ms) for a, b in pairs])


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of turns [5]")
    parser.add_argument("--seconds", type=float, default=4, help="length of a turn [4]")
    parser.add_argument("--sync", nargs="+", default=["process", "full"], help="[process full]")
    parser.add_argument("--tick-ms", nargs="+", type=int, default=[100, 1], help="[100 1]")
    parser.add_argument("--dir", type=Path, help="where the journal is to be [a temporary folder]")
    chosen = parser.parse_args()
    turns = f"{chosen.rounds} x {chosen.seconds:g} s a side"
    for sync, tick_ms in itertools.product(chosen.sync, chosen.tick_ms):
        with tempfile.TemporaryDirectory(dir=chosen.dir) as folder:
            print(f"\n`journal.sync={sync}`, cycle of {tick_ms} ms, {turns}\n")
            with both(Path(folder), sync, tick_ms) as sides:
                asyncio.run(measure(sides, chosen.rounds, chosen.seconds))


if __name__ == "__main__":
    main()
