"""The rules that a soak holds a proxy to, and the figures that it takes on the way."""

import asyncio
from dataclasses import dataclass, field

from tests.faults.harness import Stack, Training, caller
from tests.soak.gauges import Reading, comes_to, growth_mib, read, series, total

# The sandbox closes idle connections after 5 s.
REST_S = 20.0
# A heartbeat's connection may be open at one reading and not at the other.
SPARE_FDS = 2
# Arenas go on to fill up for minutes; what leaks with every call is far more in any soak.
MOST_GROWTH_MIB = 4.0
UPSTREAM = "tinkex_proxy_upstream_requests_total"


@dataclass
class Soak:
    """What is to be done, and what was seen."""

    seconds: float
    kills_wanted: bool
    seed: int
    hits: int = 0
    spells: int = 0
    kills: int = 0
    repeated: int = 0
    readings: list[Reading] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)

    def hold(self, rule: str, *, kept: bool) -> None:
        """Note a rule that was broken."""
        if not kept:
            self.violations.append(rule)


@dataclass(frozen=True)
class Rest:
    """What a proxy holds that has been used and has nothing to do."""

    tasks: float
    reading: Reading


async def at_rest(up: Stack) -> Rest:
    """Use it a little, and look once its connections have closed."""
    async with caller(up.proxy.url) as calm:
        training = await Training.begin(calm, seed=0)
        await training.train([0], range(2))
    await asyncio.sleep(REST_S / 2)
    reading = read(up.proxy)
    assert reading is not None
    return Rest((await series(up.proxy.url))["tinkex_proxy_tasks"], reading)


async def check(up: Stack, rest: Rest, soak: Soak) -> None:
    """Whether everything has come back to what it was."""

    async def tasks_now() -> float:
        return (await series(up.proxy.url))["tinkex_proxy_tasks"]

    async def fds_now() -> float:
        now = read(up.proxy)
        return 0.0 if now is None else float(now.fds)

    most_fds = rest.reading.fds + SPARE_FDS
    tasks = await comes_to(tasks_now, rest.tasks, REST_S)
    fds = await comes_to(fds_now, most_fds, REST_S)
    seen, grown = await series(up.proxy.url), growth_mib(soak.readings)
    unanswered = seen["tinkex_proxy_inflight_calls"] + seen["tinkex_proxy_lane_depth"]
    soak.hold(f"{tasks:g} tasks are left, {rest.tasks:g} at rest", kept=tasks <= rest.tasks)
    soak.hold(f"{fds:g} descriptors are open, {rest.reading.fds} at rest", kept=fds <= most_fds)
    if grown is not None:
        soak.hold(f"memory grew by {grown:.1f} MiB", kept=grown <= MOST_GROWTH_MIB)
    soak.hold(f"{unanswered:g} calls are unanswered", kept=unanswered == 0)
    soak.figures |= _figures(soak, seen) | {
        "background tasks at rest, after (allowed)": f"{rest.tasks:g}, {tasks:g} ({rest.tasks:g})",
        "file descriptors at rest, after (allowed)": f"{rest.reading.fds}, {fds:g} ({most_fds})",
        "memory at rest, most, at the end": _memory(rest.reading, soak.readings),
        "memory's growth in the second half (allowed)": _growth(grown),
    }


def _figures(soak: Soak, seen: dict[str, float]) -> dict[str, object]:
    """What was done; what the proxy counts, it has counted since its last start."""
    calls, requests = total(seen, "tinkex_proxy_calls_total"), total(seen, UPSTREAM)
    failed = total(seen, UPSTREAM, 'outcome="failure"')
    moves = total(seen, "tinkex_proxy_circuit_breaker_transitions_total")
    return {
        "bad weather": f"{soak.seconds:.0f} s, seed {soak.seed}",
        "spells of it; requests hit by faults": f"{soak.spells}; {soak.hits}",
        "`kill -9` and restart of the proxy": soak.kills,
        "calls answered; repeated by their callers": f"{calls:.0f}; {soak.repeated}",
        "upstream requests; of these failed": f"{requests:.0f}; {failed:.0f}",
        "changes of state of the breakers": f"{moves:.0f}",
    }


def _growth(grown: float | None) -> str:
    if grown is None:
        return "not judged: it had only begun to fill what it keeps"
    return f"{grown:.2f} MiB ({MOST_GROWTH_MIB:g} MiB)"


def _memory(rest: Reading, readings: list[Reading]) -> str:
    rss = [one.rss_mib for one in readings]
    return f"{rest.rss_mib:.1f}, {max(rss):.1f}, {rss[-1]:.1f} MiB"
