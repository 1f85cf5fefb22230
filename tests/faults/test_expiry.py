"""The upstream ends its session, and every model with it: callers are told, and go on elsewhere.

The weights that a model had are lost with it. So a trainer saves; when it is told `model_gone` it
makes a new model, loads what it saved and trains from there. Where nothing went wrong the same
program loads the same checkpoint into a new model at the same step.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.conftest import SHORT, STEPS
from tests.faults.harness import (
    TRAINERS,
    Caller,
    Ending,
    Refused,
    Stack,
    Training,
    caller,
    endings,
    stack,
)

SAVED_AT = 2
Crews = Sequence[Sequence[int]]
APART: Crews = [[trainer] for trainer in range(TRAINERS)]
TOGETHER: Crews = [range(TRAINERS)]
Midway = Callable[[], Awaitable[None]]


async def train_and_save(caller: Caller, crew: Sequence[int]) -> tuple[Training, str]:
    training = await Training.begin(caller, seed=crew[0])
    await training.train(crew, range(SAVED_AT))
    return training, await training.save("midway")


async def resume(caller: Caller, crew: Sequence[int], path: str) -> Training:
    training = await Training.begin(caller, seed=crew[0])
    await training.load(path)
    await training.train(crew, range(SAVED_AT, STEPS))
    await training.gather(crew, STEPS)
    return training


async def go_on(crew: Sequence[int], training: Training, path: str) -> Training:
    """Train on; where the model is gone, from what was saved."""
    while True:
        try:
            await training.train(crew, range(SAVED_AT, 1000))
        except Refused as refused:
            if refused.code != "model_gone":
                raise
            return await resume(training.caller, crew, path)


async def run(stack: Stack, crews: Crews, *, midway: Midway | None) -> list[Ending]:
    """Train and save; let something happen midway; go on from what was saved if need be."""
    async with caller(stack.proxy.url) as persistent:
        saved = await asyncio.gather(*(train_and_save(persistent, crew) for crew in crews))
        if midway is None:
            going = [
                resume(persistent, crew, path) for crew, (_, path) in zip(crews, saved, strict=True)
            ]
        else:
            going = [go_on(crew, *one) for crew, one in zip(crews, saved, strict=True)]
            await midway()
        done = await asyncio.gather(*going)
    return endings(done, stack)


@pytest.mark.parametrize("crews", [APART, TOGETHER], ids=["apart", "together"])
@pytest.mark.parametrize("path", ["/api/v1/forward_backward", "/api/v1/optim_step", "heartbeats"])
async def test_who_loses_a_model_is_told_and_trains_on_from_the_last_checkpoint(
    path: str, crews: Crews, faulty: Stack
) -> None:
    """Whatever request finds the session ended; no call is left without an answer."""
    expected = await run(faulty, crews, midway=None)

    async def expire() -> None:
        faulty.faults({"kind": "expire", "path": path})

    assert await run(faulty, crews, midway=expire) == expected
    assert faulty.hits() == 1


async def test_calls_that_the_upstream_had_not_yet_run_are_answered_too(tmp_path: Path) -> None:
    """Their promises are gone with the model, and no poll will ever bring a result."""
    with stack(tmp_path, sandbox=("--tick-ms", "1000"), proxy=SHORT) as slow:
        async with caller(slow.proxy.url) as persistent:
            training = await Training.begin(persistent, seed=0)
            calls = [asyncio.create_task(training.gather([one], 0)) for one in range(TRAINERS)]
            calls.append(asyncio.create_task(training.step()))
            async with asyncio.timeout(30):
                while slow.inspect(training.model_id)["requests"] < 3:  # made, trained, stepped
                    await asyncio.sleep(0)
            slow.end_sessions()
            ended = await asyncio.gather(*calls, return_exceptions=True)
    codes = {one.code if isinstance(one, Refused) else repr(one) for one in ended}
    # On a slow machine the first may have run by then.
    assert codes - {"None"} == {"model_gone"}
