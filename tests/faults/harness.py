"""What the matrices of faults and the soak have in common: processes, callers, training programs.

A `Process` is one command of ours that can be killed, frozen and started again on the same port. A
`Caller` does what a careful program does: it repeats a call under its Idempotency-Key, through
refused and reset connections and retryable answers, until it has the answer or its time is over.
The programs are deterministic in what they ask for, so that a run through faults can be compared
with an undisturbed one: losses, counts, and the digest of the weights, bit for bit.
"""

import asyncio
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from tinkex_proxy.config import environment_without_settings

ROOT = Path(__file__).parents[2]
BASE_MODEL = "sandbox/tiny-1"
TRAINERS = 8
# The whole of a call, with all its repetitions. Only a call that hangs comes near it.
PATIENCE_S = 60.0
# Between repetitions of a call whose connection failed.
IDEMPOTENCY = "idempotency-key"
BREATH_S = 0.05
# An answer's Retry-After is obeyed up to here: a test's outages are short.
LONGEST_WAIT_S = 1.0
VOCABULARY = 256


class Process:
    """One command in a process of its own.

    Args:
        command: `sandbox` or `serve`, and its options but for the port.
        log: file for its standard error.

    Attributes:
        program: what is run: a module, and what comes before its options.
    """

    def __init__(self, *command: str, log: Path) -> None:
        self.program: Sequence[str] = ("tinkex_proxy",)
        self._command = command
        self._log = log
        self._port = 0
        self._child: subprocess.Popen[str] | None = None
        self.url = ""

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._child is not None
        return self._child.pid

    def start(self) -> Self:
        """Start it, always on the same port, and wait until it listens.

        The port is chosen beforehand: a proxy's journal goes with the address that it is given.
        """
        self._port = self._port or _free_port()
        with self._log.open("ab") as errors:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *self.program, *self._command, "--port", str(self._port)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment_without_settings(),
                text=True,
                cwd=ROOT,
            )
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        listening = re.search(r"listening on (http://\S+:(\d+))", line)
        assert listening is not None, f"{self._command[0]} did not start: {line}{self.tail()}"
        self.url, self._port = listening[1], int(listening[2])
        return self

    def died(self) -> int:
        """Wait until it has ended by itself; gives its exit status."""
        child, self._child = self._child, None
        assert child is not None
        with child:
            return child.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Let it stand still: its kernel goes on accepting, it goes on saying nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def tail(self) -> str:
        """The end of its log, for the message of a failure."""
        return "".join(self._log.read_text(errors="replace").splitlines(keepends=True)[-30:])

    def _end(self, number: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with child:
            child.send_signal(number)
            try:
                child.wait(30)
            finally:
                child.kill()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Stack:
    """A sandbox and a proxy in front of it."""

    sandbox: Process
    proxy: Process

    def faults(self, *faults: dict[str, object], seed: int = 0) -> None:
        """Set what goes wrong upstream from now on; none: nothing."""
        plan = {"faults": list(faults), "seed": seed}
        answer = httpx.put(self.sandbox.url + "/sandbox/faults", json=plan, trust_env=False)
        assert answer.status_code == httpx.codes.OK, answer.text

    def hits(self) -> int:
        """How many requests the present faults have hit."""
        answer = httpx.get(self.sandbox.url + "/sandbox/faults", trust_env=False)
        return sum(answer.json()["hits"])

    def end_sessions(self) -> None:
        """Let the upstream end every session now, and every model with it."""
        httpx.delete(self.sandbox.url + "/sandbox/sessions", trust_env=False).raise_for_status()

    def inspect(self, model_id: str) -> dict[str, Any]:
        """What a model has come to, from upstream, past the proxy."""
        path = f"{self.sandbox.url}/sandbox/models/{model_id}"
        answer = httpx.get(path, trust_env=False)
        assert answer.status_code == httpx.codes.OK, answer.text
        return dict(answer.json())

    def flavours(self) -> list[str]:
        """Which bodies the proxy has found the upstream to take."""
        answer = httpx.get(self.proxy.url + "/version", trust_env=False)
        return list(answer.json()["upstream_flavours"])

    def close_breakers(self) -> None:
        """Let nothing of the last case's outage be left for the next."""
        with httpx.Client(base_url=self.proxy.url, trust_env=False) as client:
            for breaker in client.get("/breakers").json()["breakers"]:
                client.post(f"/breakers/{breaker['id']}/reset").raise_for_status()


@contextmanager
def stack(
    directory: Path, *, sandbox: Sequence[str] = (), proxy: Sequence[str] = ()
) -> Iterator[Stack]:
    """Run both for the time of the block.

    Args:
        directory: for their logs, and for the proxy's journal.
        sandbox: further options.
        proxy: further options.
    """
    upstream = Process("sandbox", *sandbox, log=directory / "sandbox.log").start()
    try:
        fixed = ("--upstream.base-url", upstream.url, "--journal.state-dir", str(directory))
        front = Process("serve", *fixed, *proxy, log=directory / "proxy.log").start()
        try:
            yield Stack(upstream, front)
        finally:
            front.stop()
    finally:
        upstream.stop()


class Refused(Exception):  # noqa: N818 - an event to act on
    """The proxy answered that this call will not be done.

    Attributes:
        problem: what it said.
    """

    def __init__(self, path: str, problem: dict[str, Any]) -> None:
        super().__init__(f"{path}: {problem}")
        self.problem = problem

    @property
    def code(self) -> str:
        """From the closed list in docs/errors.md."""
        return str(self.problem["code"])


class NoAnswer(AssertionError):  # noqa: N818 - says what is wrong
    """A call had no answer in all its time: what must never happen."""


class Caller:
    """Makes calls until they are answered.

    Args:
        client: opened on the proxy's URL.
        patience_s: for one call with all its repetitions.

    Attributes:
        repeated: how often a call was made again.
    """

    def __init__(self, client: httpx.AsyncClient, *, patience_s: float = PATIENCE_S) -> None:
        self._client = client
        self._patience_s = patience_s
        self.repeated = 0

    async def call(self, path: str, body: object, **headers: str) -> dict[str, Any]:
        """POST to `/v1/...` under one Idempotency-Key until the answer is there.

        Raises:
            Refused: it never will be.
            NoAnswer: it was not in time.
        """
        headers = {IDEMPOTENCY: uuid.uuid4().hex, **headers}
        return await self._answer(lambda: self._client.post(path, json=body, headers=headers))

    async def delete(self, path: str) -> dict[str, Any]:
        """DELETE, under one Idempotency-Key."""
        headers = {IDEMPOTENCY: uuid.uuid4().hex}
        return await self._answer(lambda: self._client.delete(path, headers=headers))

    async def deferred(self, path: str, body: object) -> dict[str, Any]:
        """The same with `Prefer: respond-async`, the answer fetched from its future.

        What a future came to is for good: where it says that nothing ran, the call is made again.
        """
        key = uuid.uuid4().hex

        async def made_and_fetched() -> httpx.Response:
            accepted = await self.call(path, body, prefer="respond-async", **{IDEMPOTENCY: key})
            while True:
                future = f"/v1/futures/{accepted['future_id']}?wait=20"
                answer = await self._client.get(future)
                if answer.status_code != httpx.codes.ACCEPTED:
                    return answer

        return await self._answer(made_and_fetched)

    async def _answer(self, ask: Callable[[], Awaitable[httpx.Response]]) -> dict[str, Any]:
        until = time.monotonic() + self._patience_s
        last: object = None
        while time.monotonic() < until:
            wait_s = BREATH_S
            try:
                answer = await ask()
            except httpx.TransportError as error:
                last = error
            else:
                if answer.status_code in {httpx.codes.OK, httpx.codes.ACCEPTED}:
                    return dict(answer.json())
                problem = answer.json()
                if not problem["retryable"]:
                    raise Refused(answer.url.path, problem)
                last = problem
                wait_s = min(float(answer.headers.get("retry-after", BREATH_S)), LONGEST_WAIT_S)
            self.repeated += 1
            await asyncio.sleep(wait_s)
        raise NoAnswer(f"no answer within {self._patience_s:g} s; the last was {last!r}")


@asynccontextmanager
async def caller(
    url: str, *, patience_s: float = PATIENCE_S, each_s: float | None = None
) -> AsyncIterator[Caller]:
    """A caller with connections of its own.

    Args:
        url: of the proxy.
        patience_s: for one call with all its repetitions.
        each_s: after so long it hangs up on an answer and repeats the call; None: it waits.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    timeout = httpx.Timeout(each_s or patience_s, connect=5.0)
    async with httpx.AsyncClient(
        base_url=url, timeout=timeout, limits=limits, trust_env=False
    ) as client:
        yield Caller(client, patience_s=patience_s)


def datums(trainer: int, step: int) -> list[dict[str, list[int]]]:
    """What a trainer trains in a step: one to three sequences, the same in every run."""
    draw = random.Random(f"{trainer}:{step}")  # noqa: S311 - must repeat
    made = []
    for _ in range(draw.randint(1, 3)):
        tokens = [draw.randrange(VOCABULARY) for _ in range(draw.randint(4, 12))]
        made.append({"tokens": tokens[:-1], "targets": tokens[1:]})
    return made


@dataclass(frozen=True)
class Ending:
    """How a model's training ended; two runs of one program must have equal ones.

    Attributes:
        losses: of every `forward_backward`, in the program's order.
        steps: optimizer steps that the upstream took.
        datums: in the gradient that was gathered after the last step.
        gradient_norm: of that gradient.
        weights_digest: of the weights.
    """

    losses: tuple[float, ...]
    steps: int
    datums: int
    gradient_norm: float
    weights_digest: str


@dataclass
class Training:
    """A model in training, and the losses it has had."""

    caller: Caller
    model_id: str
    losses: list[float]

    @classmethod
    async def begin(cls, caller: Caller, *, seed: int) -> Self:
        """Create the model."""
        body = {"base_model": BASE_MODEL, "rank": 4, "seed": seed}
        made = await caller.call("/v1/models", body)
        return cls(caller, made["model_id"], [])

    async def gather(self, trainers: Sequence[int], step: int) -> None:
        """Add the gradients of some trainers, all at once."""
        bodies = [{"model_id": self.model_id, "data": datums(one, step)} for one in trainers]
        calls = [self.caller.call("/v1/forward_backward", body) for body in bodies]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for answer in answers:  # every call has ended before the first failure is told
            if isinstance(answer, BaseException):
                raise answer
            self.losses.append(answer["loss"])

    async def step(self) -> None:
        """Apply them."""
        body = {"model_id": self.model_id, "adam_params": {"learning_rate": 0.01}}
        await self.caller.call("/v1/optim_step", body)

    async def train(self, trainers: Sequence[int], steps: range) -> None:
        """Rounds of gradients and a step."""
        for step in steps:
            await self.gather(trainers, step)
            await self.step()

    async def save(self, name: str) -> str:
        """Save a checkpoint; gives its path."""
        body = {"model_id": self.model_id, "name": name}
        return str((await self.caller.call("/v1/save_weights", body))["path"])

    async def load(self, path: str) -> None:
        """Load a checkpoint, optimizer and all."""
        body = {"model_id": self.model_id, "path": path, "optimizer": True}
        await self.caller.call("/v1/load_weights", body)

    def ending(self, up: Stack) -> Ending:
        """How it has ended upstream."""
        seen = up.inspect(self.model_id)
        return Ending(
            tuple(self.losses),
            seen["steps"],
            seen["datums_since_step"],
            seen["gradient_norm"],
            seen["weights_digest"],
        )


Program = Callable[[Caller, int], Awaitable[list[Training]]]


def endings(done: Sequence[Training], up: Stack) -> list[Ending]:
    """How the models of a program ended, in its order."""
    return [training.ending(up) for training in done]


async def apart(caller: Caller, steps: int) -> list[Training]:
    """Every trainer on a model of its own. The last gradient is left where it was gathered."""

    async def train(trainer: int) -> Training:
        training = await Training.begin(caller, seed=trainer)
        await training.train([trainer], range(steps))
        await training.gather([trainer], steps)
        return training

    return list(await asyncio.gather(*map(train, range(TRAINERS))))


async def together(caller: Caller, steps: int) -> list[Training]:
    """All trainers on one model: a step once all have had their answer."""
    training = await Training.begin(caller, seed=0)
    await training.train(range(TRAINERS), range(steps))
    await training.gather(range(TRAINERS), steps)
    return [training]
