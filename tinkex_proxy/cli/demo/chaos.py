"""The demo's bad day: a burst of faults, an outage, and the proof that neither left a trace.

The same model is trained twice with the same seed. The first run is left alone. In the second the
sandbox fails as services fail: for a quarter of the steps a part of its answers are errors, resets,
silence or repetitions, and later nothing gets through for a few seconds, until the proxy's circuit
breaker opens and lets a probe find the sandbox back. A gradient or a step that was lost, or applied
twice, would show in the weights; the sandbox adds gradients up independently of their order, so
equal weights are equal bit for bit.
"""

import datetime as dt
import http
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import httpx
import msgspec

from tinkex_proxy.cli.demo.screen import Screen
from tinkex_proxy.cli.demo.training import Run, Step
from tinkex_proxy.cli.exits import FAILED, CommandError
from tinkex_proxy.sandbox.faults import Duplicate, Error, Latency, Lost, Paused, Reset, Slow
from tinkex_proxy.sandbox.plans import Plan

T = TypeVar("T")

__all__ = ["BURST", "PROXY_ARGUMENTS", "Chaos"]

OUTAGE_S: Final = 4.0
# Short, so that the demo is: with the defaults the breaker would stay open for longer than it all.
# And three failures come for certain within the outage: the waits between them are 0.75 s at most.
PROXY_ARGUMENTS: Final = (
    *("--circuit-breaker.failure-threshold", "3"),
    *("--circuit-breaker.timeout-ms", "1000", "--circuit-breaker.max-timeout-ms", "2000"),
    *("--upstream.connect-timeout-s", "1", "--upstream.request-timeout-s", "2"),
)
BURST: Final = Plan(
    faults=(
        Latency(jitter_s=0.05),
        Error(status=503, path="submits", rate=0.15),
        Error(status=502, when="after", path="submits", rate=0.1),
        Error(status=429, path="submits", rate=0.05, retry_after_s=0.2),
        Reset(when="after", path="submits", rate=0.1),
        Reset(when="midway", path="polls", rate=0.1),
        Lost(path="training", rate=0.1, count=1),
        Duplicate(path="submits", rate=0.2),
        Slow(path="polls", rate=0.1, bytes_per_s=20_000),
        Paused(rate=0.1, hold_s=0.2, reason="a rehearsal"),
    )
)


class _Faults(msgspec.Struct):
    hits: list[int]


class _Inspected(msgspec.Struct):
    weights_digest: str


class _Breaker(msgspec.Struct):
    id: str
    state: str
    counts: dict[str, int]


class _Breakers(msgspec.Struct):
    breakers: list[_Breaker]


class _Move(msgspec.Struct):
    at: float
    before: str
    after: str
    cause: str


class _Explained(msgspec.Struct):
    moves: list[_Move]


@dataclass(frozen=True, slots=True)
class _Outcome:
    losses: Sequence[float]
    digest: str


class Chaos:
    """Makes the sandbox fail while a model is trained, and compares.

    Args:
        proxy: opened on the proxy's URL.
        sandbox: opened on the sandbox's URL.
        screen: where it tells what happens.
        steps: of each run.
    """

    def __init__(
        self, proxy: httpx.Client, sandbox: httpx.Client, screen: Screen, steps: int
    ) -> None:
        self._proxy = proxy
        self._sandbox = sandbox
        self._screen = screen
        self._steps = steps
        self._calm = _Outcome([], "")
        self._end: threading.Timer | None = None

    def train_undisturbed(self) -> None:
        """Make the run that the other one is compared with."""
        run = Run(self._proxy)
        losses = [step.loss for step in run.steps(self._steps)]
        self._calm = _Outcome(losses, self._digest(run))
        told = f"loss per token {losses[-1]:.6f}, weights {self._calm.digest}"
        self._screen.say(f"calm     {self._steps} steps undisturbed: {told}")
        self._screen.say()

    def after(self, step: int) -> None:
        """Begin and end what is to happen after a step, counted from 1."""
        quarter = self._steps // 4
        if step == quarter:
            self._set(BURST)
            self._shout("a burst of faults begins: errors, resets, lost and repeated answers")
        elif step == 2 * quarter:
            hits = sum(self._set(Plan()).hits)
            self._shout(f"the burst ends; {hits} times something went wrong")
        elif step == 3 * quarter:
            self._set(Plan(faults=(Reset(for_s=OUTAGE_S),)))
            self._shout(f"an outage begins: for {OUTAGE_S:g} s every connection is reset")
            self._end = threading.Timer(OUTAGE_S, self._shout, ["the outage ends"])
            self._end.daemon = True
            self._end.start()

    def judge(self, run: Run, steps: Sequence[Step]) -> bool:
        """Tell the breaker's story, and whether the run ended where the undisturbed one did."""
        if self._end is not None:
            self._end.join()
        self._tell_story(run)
        outcome = _Outcome([step.loss for step in steps], self._digest(run))
        equal = outcome == self._calm
        for name, one in (("undisturbed", self._calm), ("through it all", outcome)):
            self._screen.say(f"{name:<15} loss {one.losses[-1]!r}, weights {one.digest}")
        self._screen.say(
            "Equal: nothing was lost, nothing counted twice."
            if equal
            else "NOT EQUAL: something was lost or counted twice.",
            style="green" if equal else "red",
        )
        return equal

    def _tell_story(self, run: Run) -> None:
        self._screen.say()
        for breaker in _read(self._proxy.get("/breakers"), _Breakers).breakers:
            path = f"/breakers/{breaker.id}/explain"
            self._screen.say(f"The circuit breaker's story (GET {path}):")
            for move in sorted(_read(self._proxy.get(path), _Explained).moves, key=lambda m: m.at):
                at = dt.datetime.fromtimestamp(move.at, dt.UTC)
                moved = f"{move.before} → {move.after}"
                self._screen.say(f"{at:%H:%M:%S}  {moved:<21} {move.cause}")
            counts = ", ".join(f"{number} {name}" for name, number in breaker.counts.items())
            self._screen.say(f"It is {breaker.state} now. Outcomes: {counts}.")
        self._screen.say(
            f"Callers were refused {run.refused} times and called again; what was on its way the "
            "proxy asked for again by itself."
        )
        self._screen.say()

    def _shout(self, text: str) -> None:
        self._screen.say(f"{dt.datetime.now(dt.UTC):%H:%M:%S}  {text}", style="yellow")

    def _set(self, plan: Plan) -> _Faults:
        """Change what goes wrong; gives what went wrong so far."""
        path = "/sandbox/faults"
        before = _read(self._sandbox.get(path), _Faults)
        _read(self._sandbox.put(path, content=msgspec.json.encode(plan)), _Faults)
        return before

    def _digest(self, run: Run) -> str:
        path = f"/sandbox/models/{run.model_id}"
        return _read(self._sandbox.get(path), _Inspected).weights_digest


def _read(answer: httpx.Response, form: type[T]) -> T:
    if answer.status_code != http.HTTPStatus.OK:
        told = f"{answer.url} answered {answer.status_code}: {answer.text[:200]}"
        raise CommandError(told, status=FAILED)
    return msgspec.json.decode(answer.content, type=form)
