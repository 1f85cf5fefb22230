"""Eight trainers through every fault of the upstream: nothing lost, nothing twice, nothing stuck.

Real processes and sockets. What is compared is the model upstream (digest of the weights, steps,
datums and norm of the gradient that is gathered) and every loss that a caller was told.
"""

import asyncio
from collections.abc import Mapping, Sequence

import httpx
import pytest

from tests.faults.conftest import STEPS
from tests.faults.harness import Ending, Program, Stack, apart, caller, endings, together

Undisturbed = Mapping[Program, Sequence[Ending]]
OUTAGE_S = 1.0
BURST = {"rate": 0.5, "for_s": 1.0}

FAULTS: dict[str, list[dict[str, object]]] = {
    "answers lost after acting": [{"kind": "lost", "path": "submits", "rate": 0.1}],
    "requests lost before acting": [
        {"kind": "lost", "when": "before", "path": "submits", "rate": 0.1}
    ],
    "results lost": [{"kind": "lost", "path": "polls", "rate": 0.1, "hold_s": 0.3}],
    "resets before acting": [{"kind": "reset", "rate": 0.2}],
    "resets after acting": [{"kind": "reset", "when": "after", "rate": 0.2}],
    "answers cut off midway": [{"kind": "reset", "when": "midway", "rate": 0.2}],
    "submits delivered twice": [{"kind": "duplicate", "path": "submits", "rate": 0.5}],
    "submits delivered again, late": [
        {"kind": "duplicate", "path": "submits", "rate": 0.5, "lag_s": 0.05}
    ],
    "results delivered twice": [{"kind": "duplicate", "path": "polls", "rate": 0.5}],
    "a burst of 503 before acting": [{"kind": "error", "status": 503, **BURST}],
    "a burst of 502 after acting": [{"kind": "error", "status": 502, "when": "after", **BURST}],
    "throttling": [{"kind": "error", "status": 429, "retry_after_s": 0.1, "rate": 0.1}],
    "a queue that is paused": [{"kind": "paused", "rate": 0.2, "hold_s": 0.1}],
    "an outage of resets": [{"kind": "reset", "for_s": OUTAGE_S}],
    "an outage of 503": [{"kind": "error", "status": 503, "for_s": OUTAGE_S}],
    "slow answers": [{"kind": "slow", "bytes_per_s": 5000}],
    "slow requests": [{"kind": "slow", "bytes_per_s": 20_000, "body": "request"}],
    "jitter": [{"kind": "latency", "jitter_s": 0.05}],
    "all of it": [
        {"kind": "latency", "jitter_s": 0.01},
        {"kind": "error", "status": 503, "rate": 0.05},
        {"kind": "error", "status": 500, "when": "after", "rate": 0.05},
        {"kind": "reset", "when": "after", "rate": 0.05},
        {"kind": "reset", "when": "midway", "rate": 0.05},
        {"kind": "lost", "rate": 0.02, "hold_s": 0.3},
        {"kind": "duplicate", "path": "submits", "rate": 0.2, "lag_s": 0.01},
        {"kind": "duplicate", "path": "polls", "rate": 0.2},
        {"kind": "slow", "bytes_per_s": 20_000, "body": "both", "rate": 0.2},
        {"kind": "paused", "rate": 0.05, "hold_s": 0.05},
    ],
}


# One of each kind in every run of the tests; all of them where there is time.
ALWAYS = {"resets after acting", "an outage of 503", "all of it"}


@pytest.mark.parametrize("program", [apart, together])
@pytest.mark.parametrize(
    "fault",
    [pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.long) for name in FAULTS],
)
async def test_a_run_through_a_fault_ends_as_an_undisturbed_one(
    fault: str, program: Program, faulty: Stack, undisturbed: Undisturbed
) -> None:
    faulty.faults(*FAULTS[fault])
    async with caller(faulty.proxy.url) as persistent:
        done = await program(persistent, STEPS)
    assert faulty.hits() > 0
    assert endings(done, faulty) == undisturbed[program]


@pytest.mark.parametrize("program", [apart, together])
async def test_a_run_through_a_frozen_upstream_ends_as_an_undisturbed_one(
    program: Program, faulty: Stack, undisturbed: Undisturbed
) -> None:
    """It accepts connections and says nothing, until a breaker has opened."""
    async with caller(faulty.proxy.url) as persistent:
        faulty.sandbox.freeze()
        try:
            running = asyncio.create_task(program(persistent, STEPS))
            await _breaker_opens(faulty)
        finally:
            faulty.sandbox.thaw()
        done = await running
    assert endings(done, faulty) == undisturbed[program]


@pytest.mark.parametrize("program", [apart, together])
async def test_callers_who_hang_up_and_come_again_have_trained_once(
    program: Program, faulty: Stack, undisturbed: Undisturbed
) -> None:
    """Before its call has left it is taken back, after that it counts: once, either way."""
    faulty.faults({"kind": "latency", "jitter_s": 0.2})
    async with caller(faulty.proxy.url, each_s=0.1) as impatient:
        done = await program(impatient, STEPS)
        assert impatient.repeated > 0
    assert endings(done, faulty) == undisturbed[program]


async def _breaker_opens(stack: Stack) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient(base_url=stack.proxy.url) as client:
        while True:
            breakers = (await client.get("/breakers")).json()["breakers"]
            if any(one["state"] != "closed" for one in breakers):
                return
