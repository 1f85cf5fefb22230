"""`kill -9` at each step of a request's life: what was trained is what was asked for, bit for bit.

Eight trainers repeat their calls under the same Idempotency-Key through the proxy's deaths. The
proxy kills itself at the chosen step, is started again on the same port and the same journal, and
kills itself again: twice at each step, the second time often while it is still taking up what the
first left. Losses, steps, datums and weights must be those of an undisturbed run.
"""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from tests.crash.doomed import STEPS
from tests.faults.harness import Ending, Program, Stack, apart, caller, endings, stack, together

ROUNDS = 5
# At which request of its life each of the two doomed proxies dies.
DEATHS = {apart: (23, 17), together: (4, 3)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("crash"), sandbox=("--tick-ms", "2")) as both:
        yield both


@pytest.fixture(scope="module")
def undisturbed(running: Stack) -> dict[Program, list[Ending]]:
    """How each program ends where nothing goes wrong."""

    async def run(program: Program) -> list[Ending]:
        async with caller(running.proxy.url) as one:
            return endings(await program(one, ROUNDS), running)

    return {program: asyncio.run(run(program)) for program in DEATHS}


# Some in every run of the tests; all of them where there is time.
ALWAYS = {("acted", together), ("split", apart)}


def _case(step: str, program: Program) -> object:
    marks = [] if (step, program) in ALWAYS else pytest.mark.long
    return pytest.param(step, program, marks=marks, id=f"{step}-{program.__name__}")


@pytest.mark.parametrize(
    ("step", "program"), [_case(step, program) for step in STEPS for program in DEATHS]
)
def test_whatever_step_it_dies_at_nothing_is_lost_and_nothing_counts_twice(
    running: Stack, undisturbed: dict[Program, list[Ending]], program: Program, step: str
) -> None:
    proxy = running.proxy
    deaths = []

    def die(*doomed: str) -> None:
        deaths.append(proxy.died())
        proxy.program = doomed or ("tinkex_proxy",)
        proxy.start()

    async def run() -> list[Ending]:
        async with caller(proxy.url) as one:
            training = asyncio.ensure_future(program(one, ROUNDS))
            await asyncio.to_thread(die, "tests.crash.doomed", step, str(DEATHS[program][1]))
            await asyncio.to_thread(die)
            return endings(await training, running)

    proxy.stop()
    proxy.program = ("tests.crash.doomed", step, str(DEATHS[program][0]))
    proxy.start()
    ended = asyncio.run(run())
    assert deaths == [-signal.SIGKILL, -signal.SIGKILL]
    assert ended == undisturbed[program]
