"""The demo's bad day, and that its verdict can be both."""

import json
from dataclasses import dataclass, field

import httpx
import pytest

from tinkex_proxy.cli.demo import chaos
from tinkex_proxy.cli.demo.chaos import BURST, Chaos
from tinkex_proxy.cli.demo.training import Step
from tinkex_proxy.cli.exits import CommandError
from tinkex_proxy.sandbox.plans import read_plan

STEPS = 8


class Lines:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str = "", *, style: str = "") -> None:
        self.said.append(text)


@dataclass
class MadeUp:
    """A proxy and a sandbox in one, with weights that are told and a loss that is given."""

    digests: list[str] = field(default_factory=lambda: ["aa", "aa"])
    plans: list[bytes] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.startswith("/sandbox/models/"):
            return httpx.Response(200, json={"weights_digest": self.digests.pop(0)})
        if path == "/sandbox/faults":
            if request.method == "PUT":
                self.plans.append(request.content)
            return httpx.Response(200, json={"hits": [2, 3]})
        return httpx.Response(200, json=ANSWERS[path])


ANSWERS = {
    "/v1/capabilities": {"models": [{"model_name": "toy"}]},
    "/v1/models": {"model_id": "m"},
    "/v1/forward_backward": {"loss": 10.0, "batch": {"id": "b-1", "requests": 4}},
    "/v1/optim_step": {},
    "/breakers": {"breakers": [{"id": "b", "state": "closed", "counts": {"success": 9}}]},
    "/breakers/b/explain": {
        "moves": [
            {"at": 61.0, "before": "open", "after": "half_open", "cause": "its time"},
            {"at": 60.0, "before": "closed", "after": "open", "cause": "5 failures"},
        ]
    },
}


@pytest.fixture
def bad_day(monkeypatch):
    """Make a day of chaos against made-up services; gives it, its services and its screen."""
    monkeypatch.setattr(chaos, "OUTAGE_S", 0.01)

    def make(**more: object) -> tuple[Chaos, MadeUp, Lines]:
        services, lines = MadeUp(**more), Lines()
        client = httpx.Client(base_url="http://x", transport=httpx.MockTransport(services))
        return Chaos(client, client, lines, STEPS), services, lines

    return make


def judged(day: Chaos, last_loss: float | None = None) -> bool:
    """Train both; gives the verdict."""
    day.train_undisturbed()
    run = chaos.Run(day._proxy)
    steps = list(run.steps(STEPS))
    for step in steps:
        day.after(step.number)
    if last_loss is not None:
        steps[-1] = Step(STEPS, last_loss, 4, 1)
    return day.judge(run, steps)


def test_there_is_a_burst_then_peace_then_an_outage(bad_day) -> None:
    day, services, lines = bad_day()
    assert judged(day)
    burst, peace, outage = (read_plan(body) for body in services.plans)
    assert burst == BURST
    assert peace.faults == ()
    (reset,) = outage.faults
    assert (reset.path, reset.rate, reset.for_s) == ("all", 1, 0.01)
    told = [line.partition("  ")[2] for line in lines.said if "burst" in line or "outage" in line]
    assert told == [
        "a burst of faults begins: errors, resets, lost and repeated answers",
        "the burst ends; 5 times something went wrong",
        "an outage begins: for 0.01 s every connection is reset",
        "the outage ends",
    ]


def test_the_breakers_story_is_told_in_its_order(bad_day) -> None:
    day, _, lines = bad_day()
    judged(day)
    story = lines.said[lines.said.index("The circuit breaker's story (GET /breakers/b/explain):") :]
    assert story[1:4] == [
        "00:01:00  closed → open         5 failures",
        "00:01:01  open → half_open      its time",
        "It is closed now. Outcomes: 9 success.",
    ]


def test_equal_runs_are_called_equal(bad_day) -> None:
    day, _, lines = bad_day()
    assert judged(day)
    assert lines.said[-1].startswith("Equal:")


def test_other_weights_are_not_equal(bad_day) -> None:
    day, _, lines = bad_day(digests=["aa", "ab"])
    assert not judged(day)
    assert lines.said[-1].startswith("NOT EQUAL")


def test_another_loss_is_not_equal(bad_day) -> None:
    day, _, lines = bad_day()
    assert not judged(day, last_loss=0.2500000001)
    assert lines.said[-1].startswith("NOT EQUAL")


def test_what_cannot_be_read_is_told(bad_day, monkeypatch) -> None:
    day, _, _ = bad_day()
    refusing = httpx.MockTransport(lambda _: httpx.Response(401, text="no key"))
    day._sandbox = httpx.Client(base_url="http://x", transport=refusing)
    with pytest.raises(CommandError, match="http://x/sandbox/faults answered 401: no key"):
        day.after(STEPS // 4)


def test_every_kind_of_fault_but_expiry_is_in_the_burst() -> None:
    """A session that ends takes its models with it: no proxy can train on."""
    kinds = {fault["kind"] for fault in json.loads(chaos.msgspec.json.encode(BURST))["faults"]}
    everything = {"latency", "error", "reset", "lost", "duplicate", "slow", "paused"}
    assert kinds == everything


def test_a_run_through_it_all_ends_with_equal_weights(run, monkeypatch) -> None:
    """The whole demo: real processes, real resets, real weights."""
    monkeypatch.setattr(chaos, "OUTAGE_S", 1.5)
    status, out, errors = run("demo", "--once", "--chaos", "--steps", "16", "--port", "0")
    assert status == 0, out + errors
    assert "a burst of faults begins" in out
    assert "the outage ends" in out
    assert "closed → open" in out
    assert "half_open → closed" in out
    assert "Equal: nothing was lost, nothing counted twice." in out


def test_too_few_steps_are_refused(run) -> None:
    status, _, errors = run("demo", "--chaos", "--steps", "7")
    assert status == 2
    assert "--chaos needs --steps 8 or more, and got 7" in errors
