"""One sandbox and one proxy for a file of cases, and what an undisturbed run comes to."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.faults.harness import (
    Ending,
    Program,
    Stack,
    apart,
    caller,
    endings,
    stack,
    together,
)

# Everything that waits is short, so that a case is. What is waited for is the same.
SHORT = (
    *("--upstream.connect-timeout-s", "0.5", "--upstream.request-timeout-s", "0.5"),
    *("--upstream.poll-timeout-s", "1", "--upstream.heartbeat-interval-s", "0.5"),
    *("--circuit-breaker.timeout-ms", "200", "--circuit-breaker.max-timeout-ms", "400"),
)
STEPS = 4


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A sandbox and a proxy in front of it."""
    with stack(tmp_path_factory.mktemp("stack"), proxy=SHORT) as up:
        yield up


@pytest.fixture
def faulty(running: Stack) -> Iterator[Stack]:
    """The same, calm again after the test."""
    yield running
    running.faults()
    running.close_breakers()


@pytest.fixture(scope="module")
def undisturbed(running: Stack) -> Mapping[Program, Sequence[Ending]]:
    """How each program ends where nothing goes wrong."""

    async def run(program: Program) -> Sequence[Ending]:
        async with caller(running.proxy.url) as calm:
            done = await program(calm, STEPS)
        return endings(done, running)

    return {program: asyncio.run(run(program)) for program in (apart, together)}
