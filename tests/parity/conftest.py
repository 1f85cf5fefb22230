"""A scripted upstream, and time that passes as soon as somebody waits for it."""

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import msgspec
import pytest

from tinkex_proxy.core.breaker import GateSettings
from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.core.trip import TripSettings
from tinkex_proxy.runtime.account import Account, AccountSettings
from tinkex_proxy.runtime.breakers import Breaker, BreakerSettings
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.futures import Poller
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.lanes import Tools
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.scripted import ScriptedTransport
from tinkex_proxy.runtime.submit import Submitter
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.transport import Request, Response
from tinkex_proxy.runtime.upstream import Upstream
from tinkex_proxy.wire.datum import Flavour

Answer = Response | Fault


class EagerClock(ManualClock):
    """Jumps over every sleep and notes it."""

    def __init__(self) -> None:
        super().__init__(1000.0)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)


def reply(status: int = 200, body: object = None, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = body if isinstance(body, bytes) else msgspec.json.encode({} if body is None else body)
    return Response(status, {"content-type": "application/json", **named}, raw)


@dataclass
class Scripted:
    """An upstream that answers from a script, one answer for each request or a function of it."""

    clock: EagerClock = field(default_factory=EagerClock)
    hub: Hub = field(default_factory=lambda: Hub([], print))

    def upstream(
        self, answers: Iterable[Answer] | Callable[[Request], Answer]
    ) -> tuple[Upstream, list[Request]]:
        if not callable(answers):
            script = iter(answers)
            answers = lambda _: next(script)  # noqa: E731
        transport = ScriptedTransport(answers)
        trip = TripSettings(failure_threshold=100_000)
        breaker = Breaker(
            "b",
            BreakerSettings(gate=GateSettings(trip=trip)),
            clock=self.clock,
            hub=self.hub,
            wall_clock=self.clock.now,
            draw=lambda: 0.0,
        )
        upstream = Upstream(transport, "tml-key", breaker, clock=self.clock, hub=self.hub)
        return upstream, transport.requests


class Service:
    """A small whole upstream: admits every submit and gives each a result, unless told otherwise.

    Attributes:
        submits: call and body of every submit, in the order they came.
        requests: the same as they were on the wire, repetitions included.
        instead: answers to give to a call before its own, by name.
    """

    def __init__(self) -> None:
        self.submits: list[tuple[str, dict[str, object]]] = []
        self.requests: list[Request] = []
        self.instead: dict[str, list[Answer]] = {}

    def __call__(self, request: Request) -> Answer:
        name = request.path.removeprefix("/api/v1/")
        body = msgspec.json.decode(request.body) if request.body else {}
        if name not in {"create_session", "client/config", "retrieve_future"}:
            self.requests.append(request)
        if self.instead.get(name):
            return self.instead[name].pop(0)
        if name == "create_session":
            return reply(200, {"session_id": "s"})
        if name == "create_sampling_session":
            return reply(200, {"sampling_session_id": "x"})
        if name == "client/config":
            return reply()
        if name == "retrieve_future":
            return reply(200, self.result(*self.submits[int(body["request_id"])]))
        self.submits.append((name, body))
        return reply(200, {"request_id": str(len(self.submits) - 1)})

    def result(self, name: str, body: dict[str, object]) -> dict[str, object]:
        if name == "asample":
            drawn = {"tokens": [1], "logprobs": [-0.5], "stop_reason": "length"}
            return {"sequences": [drawn]}
        data = body.get("forward_backward_input", {}).get("data")
        if data is None:
            return {"type": name}
        return {"loss_fn_outputs": [{"logprobs": {"data": [-1.0]}} for _ in data], "metrics": {}}


@pytest.fixture(name="reply")
def _reply() -> Callable[..., Response]:
    return reply


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def account(scripted: Scripted, service: Service) -> AsyncIterator[Account]:
    """The account of one key at `service`, with one live model `m`, in the JSON flavour."""
    upstream, _ = scripted.upstream(service)
    tasks = Tasks(lambda name, error: None)
    tools = Tools(
        submitter=Submitter(upstream, scripted.clock),
        poller=Poller(upstream, scripted.clock),
        knows=partial(knows_model, upstream, scripted.clock),
        tasks=tasks,
        clock=ManualClock(),  # heartbeats stay asleep
        hub=scripted.hub,
    )
    settings = AccountSettings(limits=Limits(linger_s=0, idle_s=0), flavour=Flavour.JSON)
    made = Account("k", upstream, tools, settings)
    made.adopt({}, "m", "s")
    yield made
    made.close()
    await tasks.cancel_all()
