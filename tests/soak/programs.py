"""The programs that train during a soak, each in another way of calling.

A program's rounds are numbered, and a round asks for the same in every run. So a soak only has to
note how many rounds each program came to; a replay of as many rounds must end with equal models.
"""

import asyncio
import json
import sys
from abc import ABC, abstractmethod
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from tests.faults.harness import BASE_MODEL, Caller, Refused, Training, datums
from tinkex_proxy.config import environment_without_settings

SDK_PROGRAM = Path(__file__).with_name("sdk_program.py")
# Its own waits are longer than ours, and the end of a round may have to wait for all of them.
SDK_END_S = 120.0
SAMPLE_EVERY = 5


class Program(ABC):
    """One program.

    Args:
        caller: makes its calls.
        number: of the program, and the seed of its model.
    """

    name: ClassVar[str]

    def __init__(self, caller: Caller, number: int) -> None:
        self.caller = caller
        self.number = number
        self.rounds = 0
        self.training: Training | None = None

    async def run(self, stop: asyncio.Event, most: int | None = None) -> None:
        """Make a model and train it: until it is to stop, or for so many rounds."""
        self.training = await Training.begin(self.caller, seed=self.number)
        while self.rounds != most and (most is not None or not stop.is_set()):
            await self.round(self.training, self.rounds)
            self.rounds += 1

    @abstractmethod
    async def round(self, training: Training, number: int) -> None:
        """Train a step."""


class Plain(Program):
    """One caller, one call after another."""

    name = "plain calls"

    @override
    async def round(self, training: Training, number: int) -> None:
        await training.gather([self.number], number)
        await training.step()


class Impatient(Plain):
    """Hangs up on a slow answer, and comes again."""

    name = "hanging up"


class Shared(Program):
    """Four callers on one model."""

    name = "four callers on one model"

    @override
    async def round(self, training: Training, number: int) -> None:
        await training.gather(range(self.number, self.number + 4), number)
        await training.step()


class Deferred(Program):
    """`Prefer: respond-async`: gradients and step are sent at once, the answers fetched later."""

    name = "futures"

    @override
    async def round(self, training: Training, number: int) -> None:
        body = {"model_id": training.model_id, "data": datums(self.number, number)}
        trained = await self.caller.deferred("/v1/forward_backward", body)
        training.losses.append(trained["loss"])
        adam = {"model_id": training.model_id, "adam_params": {"learning_rate": 0.01}}
        await self.caller.deferred("/v1/optim_step", adam)


class Batched(Program):
    """The batch calls; what was refused of a batch and may go again goes in the next one."""

    name = "batch calls"

    @override
    async def round(self, training: Training, number: int) -> None:
        bodies = [
            {"model_id": training.model_id, "data": datums(self.number + part, number)}
            for part in range(4)
        ]
        training.losses += [one["loss"] for one in await self._all("forward_backward", bodies)]
        adam = {"model_id": training.model_id, "adam_params": {"learning_rate": 0.01}}
        await self._all("optim_step", [adam])

    async def _all(self, name: str, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        path = f"/v1/{name}_batch"
        done: dict[int, dict[str, Any]] = {}
        while left := [place for place in range(len(bodies)) if place not in done]:
            asked = {"requests": [bodies[place] for place in left]}
            results = (await self.caller.call(path, asked))["results"]
            for place, one in zip(left, results, strict=True):
                if one["status"] == "ok":
                    done[place] = one
                elif not one["error"]["retryable"]:
                    raise Refused(path, one["error"])
            await asyncio.sleep(0.05 if len(done) < len(bodies) else 0)
        return [done[place] for place in range(len(bodies))]


class Sampling(Program):
    """Samples from the model as it is, and from its base, between steps; tokens count as losses."""

    name = "samples"

    @override
    async def round(self, training: Training, number: int) -> None:
        await training.gather([self.number], number)
        await training.step()
        if number % SAMPLE_EVERY == 0:
            await self._sample(training, model_id=training.model_id)
            await self._sample(training, base_model=BASE_MODEL)

    async def _sample(self, training: Training, **source: str) -> None:
        params = {"max_tokens": 4, "temperature": 0.0}
        body = {**source, "prompt": [1, 2, 3], "sampling_params": params}
        drawn = await self.caller.call("/v1/sample", body)
        training.losses += [float(token) for token in drawn["sequences"][0]["tokens"]]


class Sdk(Program):
    """The official SDK, in a process of its own.

    Args:
        caller: of the soak; the SDK makes its own calls.
        number: as ever.
        url: of the proxy.
        log: file for what the SDK logs.
    """

    name = "SDK 0.38"

    def __init__(self, caller: Caller, number: int, url: str, log: Path) -> None:
        super().__init__(caller, number)
        self._url = url
        self._log = log

    @override
    async def run(self, stop: asyncio.Event, most: int | None = None) -> None:
        rounds = [] if most is None else [str(most)]
        with self._log.open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, str(SDK_PROGRAM), self._url, str(self.number), *rounds),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=environment_without_settings(),
            )
        try:
            if most is None:
                await _ended_or_told(child, stop)
            # A replay takes as long as its rounds, each of which has its bound in the program.
            async with asyncio.timeout(SDK_END_S if most is None else None):
                said, _ = await child.communicate(b"")  # its input ends: this round is the last
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode != 0:
            raise Refused("the SDK's program", {"code": self._log.read_text()[-2000:]})
        seen = json.loads(said)
        self.rounds = seen["rounds"]
        self.training = Training(self.caller, seen["model_id"], seen["losses"])

    @override
    async def round(self, training: Training, number: int) -> None:
        raise NotImplementedError  # its process has its own


async def _ended_or_told(child: Process, stop: asyncio.Event) -> None:
    ended, told = asyncio.create_task(child.wait()), asyncio.create_task(stop.wait())
    await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    told.cancel()


def programs(caller: Caller, impatient: Caller, url: str, logs: Path) -> list[Program]:
    """Those of a soak.

    Args:
        caller: waits for its answers.
        impatient: hangs up after a moment, and repeats the call.
        url: of the proxy.
        logs: directory for logs.
    """
    return [
        Plain(caller, 0),
        Impatient(impatient, 1),
        Shared(caller, 2),
        Deferred(caller, 10),
        Batched(caller, 20),
        Sampling(caller, 30),
        Sdk(caller, 40, url, logs / "sdk.log"),
    ]
