"""Loads, and rounds of them: everybody's turn in every round, in another order each time.

Whatever else the machine does hits those who take part in the same minute alike, so ratios are
taken within a round, and only then is the median of the rounds told. Each load has fresh processes,
so that a peak of memory belongs to it.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.compare import running, wrk
from tests.bench.compare.contestants import (
    BY_NAME,
    CONTESTANTS,
    DIRECT_PLAIN,
    FLOOR,
    LITELLM_NAME,
    NGINX_LARGE,
    OUR_SAMPLE,
    OUR_TRAINING,
    Contestant,
)

# Connections, caches, code that runs for the first time.
WARM_UP_S = 1


@dataclass(frozen=True, slots=True)
class Load:
    """How contestants are called.

    Attributes:
        name: as tables have it.
        connections: how many call at once.
        large: whether with bodies of 5 MB.
        least_s: what a turn takes at least.
        absent: who does not take part.
    """

    name: str
    connections: int
    large: bool = False
    least_s: int = 1
    absent: frozenset[str] = frozenset()

    def taking_part(self, names: Sequence[str]) -> list[Contestant]:
        """Who is called, of those that are named."""
        return [one for one in CONTESTANTS if one.name in names and one.name not in self.absent]


_SMALL_ONLY = frozenset(
    {OUR_SAMPLE, OUR_TRAINING, DIRECT_PLAIN, FLOOR, "granian echo", LITELLM_NAME}
)
_LARGE_ONLY = frozenset({NGINX_LARGE})
# What takes everybody on before it answers the first needs seconds for so many, and to open their
# connections takes one: what is asked is how fast it goes from there on. LiteLLM's timeouts would
# be all there is to count of 2,000.
LOADS = (
    Load("c=1", 1, absent=_LARGE_ONLY),
    Load("c=16", 16, absent=_LARGE_ONLY),
    Load("c=256", 256, least_s=3, absent=_LARGE_ONLY),
    Load("c=2000", 2000, least_s=10, absent=_LARGE_ONLY | {LITELLM_NAME}),
    Load("5 MB c=4", 4, large=True, absent=_SMALL_ONLY),
)
BY_LOAD = {load.name: load for load in LOADS}


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of one contestant.

    Attributes:
        load: the load's name.
        name: the contestant's.
        round: which round it belongs to, from 0.
        rate: answers a second.
        p50_ms: half of the calls took no longer.
        p99_ms: all but one in a hundred took no longer.
        cpu_us: what its processes worked for each, microseconds of a processor; 0 without any.
        errors: answers of 400 and above, and connections that failed.
    """

    load: str
    name: str
    round: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    errors: int


@dataclass(frozen=True, slots=True)
class Peak:
    """The most memory that was resident under a load, MiB."""

    load: str
    name: str
    mib: float


@dataclass(frozen=True, slots=True)
class Seen:
    """All that was measured."""

    turns: list[Turn]
    peaks: list[Peak]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured.

    Attributes:
        loads: one after the other.
        names: who takes part.
        rounds: turns of each.
        seconds: length of a turn.
    """

    loads: Sequence[Load]
    names: Sequence[str]
    rounds: int
    seconds: int


def measure(plan: Plan, tell: Callable[[str], None]) -> Seen:
    """Put all loads on all who take part.

    Args:
        plan: what is to be measured.
        tell: is told each turn.
    """
    seen = Seen([], [])
    for load in plan.loads:
        with tempfile.TemporaryDirectory(prefix="tinkex-compare-") as folder:
            _under(load, plan, Path(folder), seen, tell)
    return seen


def _under(load: Load, plan: Plan, folder: Path, seen: Seen, tell: Callable[[str], None]) -> None:
    which = load.taking_part(plan.names)
    with (
        running.sinks(folder, large=load.large) as sinks,
        running.contestants(which, sinks, folder) as up,
    ):
        for one in up:
            call = one.contestant.call(large=load.large)
            wrk.drive(one.url, call, load.connections, WARM_UP_S, folder)
            running.settle(one.tree)
        for number in range(plan.rounds):
            at = number % len(up)
            for one in [*up[at:], *up[:at]]:
                turn = _turn(load, one, number, plan.seconds, folder)
                seen.turns.append(turn)
                tell(said(turn))
        seen.peaks.extend(Peak(load.name, one.contestant.name, one.tree.peak_mib()) for one in up)


def _turn(load: Load, one: running.Up, number: int, seconds: int, folder: Path) -> Turn:
    call = one.contestant.call(large=load.large)
    before = one.tree.cpu_s()
    counted = wrk.drive(one.url, call, load.connections, max(seconds, load.least_s), folder)
    worked = one.tree.cpu_s() - before
    running.settle(one.tree)
    done = counted.requests
    return Turn(
        load=load.name,
        name=one.contestant.name,
        round=number,
        rate=done / counted.seconds,
        p50_ms=counted.p50_ms,
        p99_ms=counted.p99_ms,
        cpu_us=1e6 * worked / done if done else 0.0,
        errors=counted.refused + counted.broken,
    )


def said(turn: Turn) -> str:
    """A turn as it is printed while the benchmark goes on."""
    return (
        f"{turn.load:10s} {turn.round + 1:2d} {turn.name:28s} {turn.rate:9.1f}/s "
        f"p50 {turn.p50_ms:8.3f} ms p99 {turn.p99_ms:8.3f} ms "
        f"{turn.cpu_us:8.1f} us of cpu, {turn.errors} errors"
    )


ALL = tuple(BY_NAME)
