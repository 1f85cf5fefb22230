"""What takes too long for every day: an outage of a minute, and many steps through everything.

With the settings that a user has, not with short ones: a breaker that opens for 30 s and 60 s, and
callers who are told when to come back.

Through everything, a fifth of all requests fails, and so does a fifth of the probes: one breaker in
a hundred would stay open for 30, 60 and 120 s and longer than any test's patience. There it opens
for 30 s each time.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import Ending, Stack, apart, caller, endings, stack, together
from tests.faults.test_matrix import FAULTS

OUTAGE_S = 60.0
# Beyond the outage: the breaker's second cool-down, and the waits of those who are refused.
PATIENCE_S = 240.0


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Stack]:
    with stack(tmp_path) as up:
        yield up


@pytest.fixture
def undoubled(tmp_path: Path) -> Iterator[Stack]:
    with stack(tmp_path, proxy=["--circuit-breaker.max-timeout-ms", "30000"]) as up:
        yield up


async def train(running: Stack, steps: int) -> list[Ending]:
    """Eight trainers on eight models and eight on one, at the same time."""
    async with caller(running.proxy.url, patience_s=PATIENCE_S) as persistent:
        ran = await asyncio.gather(apart(persistent, steps), together(persistent, steps))
    return [ending for done in ran for ending in endings(done, running)]


@pytest.mark.parametrize(
    "fault", [{"kind": "reset"}, {"kind": "error", "status": 503}], ids=["resets", "503"]
)
async def test_training_survives_an_outage_of_a_minute(
    running: Stack, fault: dict[str, object]
) -> None:
    steps = 40
    undisturbed = await train(running, steps)
    running.faults({**fault, "from_s": 1.0, "for_s": OUTAGE_S})
    assert await train(running, steps) == undisturbed
    assert running.hits() > 0


@pytest.mark.parametrize("seed", range(4))
async def test_many_steps_through_everything_end_as_undisturbed_ones(
    undoubled: Stack, seed: int
) -> None:
    steps = 20
    undisturbed = await train(undoubled, steps)
    shorter = [fault for fault in FAULTS["all of it"] if fault["kind"] != "lost"]
    undoubled.faults(*shorter, {"kind": "lost", "rate": 0.01, "hold_s": 1.0}, seed=seed)
    assert await train(undoubled, steps) == undisturbed
    assert undoubled.hits() > 0
