"""What a process holds: read every second from the kernel, and from its own `/metrics`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx
import psutil

from tests.faults.harness import Process

EVERY_S = 1.0
# Answers are kept for those who repeat a call, and records for the page: as many as fit, and with
# the load of a soak they have come to that in a minute.
WARM_S = 55.0
MIB = 1024 * 1024


@dataclass(frozen=True)
class Reading:
    """What the proxy held at a moment.

    Attributes:
        at_s: since the watch began.
        pid: of the proxy that was up.
        rss_mib: resident memory.
        fds: open file descriptors.
    """

    at_s: float
    pid: int
    rss_mib: float
    fds: int


def read(process: Process, at_s: float = 0.0) -> Reading | None:
    """Read it now; None while it is down."""
    try:
        seen = psutil.Process(process.pid)
        with seen.oneshot():
            return Reading(at_s, seen.pid, seen.memory_info().rss / MIB, seen.num_fds())
    except (psutil.Error, AssertionError):
        return None


async def watch(process: Process, readings: list[Reading]) -> None:
    """Read every second until cancelled."""
    began = time.monotonic()
    while True:
        now = read(process, time.monotonic() - began)
        if now is not None:
            readings.append(now)
        await asyncio.sleep(EVERY_S)


def slope_per_s(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line that is nearest to the points; 0 where there is none."""
    if not points:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def growth_mib(readings: Sequence[Reading]) -> float | None:
    """What the last process grew by in the second half, by the line through its readings.

    None where that half began before the process had been up for `WARM_S`: it would be the growth
    of caches and arenas that fill up.
    """
    last = [one for one in readings if one.pid == readings[-1].pid]
    half = last[len(last) // 2 :]
    if half[0].at_s - last[0].at_s < WARM_S:
        return None
    return slope_per_s([(one.at_s, one.rss_mib) for one in half]) * (half[-1].at_s - half[0].at_s)


async def series(url: str) -> dict[str, float]:
    """What `/metrics` says now, by the series' whole name."""
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(url + "/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def total(seen: dict[str, float], name: str, *labels: str) -> float:
    """Of all the series of a name that hold every label."""
    wanted = {k: v for k, v in seen.items() if k.partition("{")[0] == name}
    return sum(v for k, v in wanted.items() if all(label in k for label in labels))


async def comes_to(read: Callable[[], Awaitable[float]], most: float, within_s: float) -> float:
    """Wait until a number is no more than that; gives what it was last."""
    until = time.monotonic() + within_s
    while (now := await read()) > most and time.monotonic() < until:
        await asyncio.sleep(0.5)
    return now
