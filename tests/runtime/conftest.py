import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from tinkex_proxy.core.breaker import GateSettings
from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.core.trip import TripSettings
from tinkex_proxy.runtime.breakers import Breaker, BreakerSettings
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import Event
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.journal import NoJournal
from tinkex_proxy.runtime.scripted import ScriptedTransport
from tinkex_proxy.runtime.store import Change
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.transport import Request, Response
from tinkex_proxy.runtime.upstream import Upstream


class EagerClock(ManualClock):
    """Time that jumps over every sleep, so that what is patient is patient at once.

    But not over one of `longest_s` seconds or more: `held` says that somebody sleeps so long.
    """

    def __init__(self) -> None:
        super().__init__(1000.0)
        self.slept: list[float] = []
        self.longest_s = math.inf
        self.held = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if seconds >= self.longest_s:
            self.held.set()
            await asyncio.Event().wait()
        self.advance(seconds)


@dataclass
class Recorder:
    events: list[Event] = field(default_factory=list)

    def on_event(self, event: Event) -> None:
        self.events.append(event)


class Noted(NoJournal):
    """A journal that says what it was told, in order; a commit of nothing too."""

    on = True

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.commits: list[Sequence[Change]] = []
        self.refusing: Exception | None = None

    def note(self, *changes: Change) -> None:
        self.changes += changes

    async def commit(self, changes: Sequence[Change] = ()) -> None:
        self.commits.append(changes)
        if self.refusing is not None:
            raise self.refusing
        self.changes += changes


@dataclass
class Bench:
    """An upstream on a scripted transport, with time and events in the test's hands."""

    clock: EagerClock
    recorder: Recorder
    hub: Hub
    tasks: Tasks
    crashes: list[tuple[str, BaseException]]

    def upstream(
        self,
        answers: Iterable[Response | Fault] | Callable[[Request], Response | Fault],
        *,
        threshold: int = 100,
        trip: TripSettings | None = None,
        key: str | None = "tml-key",
    ) -> tuple[Upstream, ScriptedTransport]:
        if not callable(answers):
            script = iter(answers)
            answers = lambda _: next(script)  # noqa: E731
        transport = ScriptedTransport(answers)
        breaker = Breaker(
            "b",
            BreakerSettings(
                gate=GateSettings(
                    trip=trip or TripSettings(failure_threshold=threshold),
                    open_for_s=30,
                    probe_lease_s=100,
                )
            ),
            clock=self.clock,
            hub=self.hub,
            wall_clock=lambda: 1.5,
            draw=lambda: 0.0,
        )
        return Upstream(transport, key, breaker, clock=self.clock, hub=self.hub), transport


@pytest.fixture
def bench() -> Bench:
    recorder = Recorder()

    def broken(error: Exception) -> None:
        raise error

    crashes: list[tuple[str, BaseException]] = []
    tasks = Tasks(lambda name, error: crashes.append((name, error)))
    return Bench(EagerClock(), recorder, Hub([recorder], broken), tasks, crashes)


@pytest.fixture
def noted() -> Noted:
    return Noted()


@pytest.fixture
def reply() -> Callable[..., Response]:
    import msgspec  # noqa: PLC0415

    def make(status: int = 200, body: object = None, **headers: str) -> Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("content-type", "application/json")
        raw = body if isinstance(body, bytes) else msgspec.json.encode({} if body is None else body)
        return Response(status, named, raw)

    return make
