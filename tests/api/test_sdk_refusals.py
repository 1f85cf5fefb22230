"""What SDK callers are told when their request cannot go up, and that the official SDK obeys.

The table is held on the whole application with time in the test's hands; the runs of the SDK count
its requests while the upstream is away, and compare the numbers it ends with.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tinkex_proxy import assembly
from tinkex_proxy.config import Settings
from tinkex_proxy.core.outcome import Fault, Outcome
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.scripted import ScriptedTransport
from tinkex_proxy.runtime.transport import Response

KEY = "tml-sandbox"
PROGRAM = Path(__file__).with_name("sdk_refused.py")

MODES = pytest.mark.parametrize("mode", ["lane", "transparent"])

# One request of each kind: method, path below /api/v1, body.
SUBMITS = [
    ("POST", "create_session", {"sdk_version": "0.38.0"}),
    ("POST", "asample", {"sampling_session_id": "s", "seq_id": 1}),
    ("POST", "telemetry", {"events": []}),
    ("POST", "cancel_future", {"request_id": "7"}),
    ("POST", "create_model", {"session_id": "s", "model_seq_id": 0, "base_model": "m"}),
]
# In lane mode the first is for a lane, and the second for a model that the proxy does not know.
TRAINING = [
    ("POST", "optim_step", {"model_id": "s:train:0", "seq_id": 1, "adam_params": {}}),
    ("POST", "save_weights", {"model_id": "s:train:0", "seq_id": 7, "path": "ck"}),
]
QUERIES = [("GET", "get_server_capabilities", None), ("DELETE", "training_runs/a", None)]
POLLS = [
    ("POST", "retrieve_future", {"request_id": "7", "allow_metadata_only": True}),
    ("POST", "retrieve_futures", {"target": {"sampling_session_id": "s"}, "prev_cursor": 0}),
]
HEARTBEATS = [("POST", "session_heartbeat", {"session_id": "s"})]
REFUSED = SUBMITS + QUERIES


def named(requests: list[tuple[str, str, object]]) -> list[str]:
    return [path for _, path, _ in requests]


class Bench:
    """A whole proxy whose upstream is a script and whose clock stands still."""

    def __init__(self, mode: str, monkeypatch, **options: object) -> None:
        self.clock = ManualClock(1000.0)
        self.answer: Response | Fault = Response(200, {"content-type": "application/json"}, b"{}")
        self.transport = ScriptedTransport(lambda _: self.answer)
        monkeypatch.setattr(assembly, "open_transport", lambda *_, **__: self.transport)
        settings = {"upstream.base_url": "http://127.0.0.1:1", "sdk.mode": mode}
        self.proxy = assembly.build(Settings.load({**settings, **options}), clock=self.clock)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.proxy.app), base_url="http://localhost"
        )

    @property
    def breaker(self):
        return self.proxy.services.accounts.of(KEY).upstream.breaker

    def trip(self) -> None:
        for _ in range(5):
            self.breaker.settle(self.breaker.acquire(), Outcome.FAILURE, "503")

    def sent(self, request: tuple[str, str, object]) -> bool:
        """Whether it went up."""
        return any(up.path == f"/api/v1/{request[1]}" for up in self.transport.requests)

    async def ask(self, request: tuple[str, str, object]) -> httpx.Response:
        method, path, body = request
        headers = {"x-api-key": KEY}
        return await self.client.request(method, f"/api/v1/{path}", json=body, headers=headers)

    async def held(self, request: tuple[str, str, object]) -> tuple[float, httpx.Response]:
        """Ask, and find to the tenth of a second how long we are kept waiting."""
        asking, began = asyncio.ensure_future(self.ask(request)), self.clock.now()
        while not (self.clock.pending or asking.done()):
            await asyncio.sleep(0)
        while not asking.done():
            self.clock.advance(0.1)
            for _ in range(30):
                await asyncio.sleep(0)
        return self.clock.now() - began, asking.result()


@pytest.fixture
def bench(monkeypatch) -> Callable[..., Bench]:
    return lambda mode, **options: Bench(mode, monkeypatch, **options)


def obeyed(answer: httpx.Response, least: float, most: float) -> None:
    """The SDK waits as told only if told more than nothing and at most a minute.

    It reads the milliseconds first. Samples it repeats in bursts after a 503, and gently after 429.
    """
    assert answer.status_code == (429 if answer.url.path.endswith("asample") else 503)
    assert least <= float(answer.headers["retry-after-ms"]) / 1000 <= most <= 60
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.headers.get("x-should-retry") != "false"  # Retry-After would be ignored
    assert set(answer.json()) == {"detail"}


def asked_again(answer: httpx.Response, request: tuple[str, str, object]) -> None:
    assert answer.status_code == 408
    told = answer.json()
    assert (told["type"], told["queue_state"]) == ("try_again", "paused_capacity")
    assert told["queue_state_reason"]
    assert told["request_id"] == request[2].get("request_id")


@MODES
@pytest.mark.parametrize("request_", REFUSED + TRAINING, ids=named(REFUSED + TRAINING))
@pytest.mark.parametrize(
    ("open_for_s", "least", "most"), [(0.2, 1, 1.5), (10, 10, 15), (30, 30, 45), (300, 45, 60)]
)
async def test_open_breaker_submits_and_questions_are_told_when(
    bench, mode, request_, open_for_s, least, most
) -> None:
    """503 in the upstream's shape, Retry-After past the window, jittered, within 1 to 60 s."""
    set_up = bench(mode, **{"circuit_breaker.timeout_ms": int(open_for_s * 1000)})
    set_up.trip()
    obeyed(await set_up.ask(request_), least, most)
    assert not set_up.sent(request_)


@MODES
@pytest.mark.parametrize("request_", POLLS, ids=named(POLLS))
@pytest.mark.parametrize(
    ("open_for_s", "least", "most"), [(2, 2, 3.2), (30, 30, 40), (300, 30, 45)]
)
async def test_open_breaker_polls_are_held_and_told_to_ask_again(
    bench, mode, request_, open_for_s, least, most
) -> None:
    """Held to the end of the window, but not past the 45 s after which the SDK hangs up."""
    set_up = bench(mode, **{"circuit_breaker.timeout_ms": int(open_for_s * 1000)})
    set_up.trip()
    waited, answer = await set_up.held(request_)
    assert least - 0.01 <= waited <= most + 0.11
    asked_again(answer, request_)
    assert not set_up.sent(request_)


@MODES
@pytest.mark.parametrize("request_", POLLS + REFUSED, ids=named(POLLS + REFUSED))
async def test_half_open_whoever_is_no_probe_waits_too(bench, mode, request_) -> None:
    """With the one probe out, the others are refused as by an open breaker."""
    set_up = bench(mode)
    set_up.trip()
    set_up.clock.advance(31)
    assert set_up.breaker.acquire().is_probe
    if request_ in POLLS:
        waited, answer = await set_up.held(request_)
        assert 0.5 <= waited <= 45
        asked_again(answer, request_)
    else:
        obeyed(await set_up.ask(request_), 1, 60)
    assert not set_up.sent(request_)


@MODES
@pytest.mark.parametrize("fault", [Fault.CONNECT, Fault.RESET, Fault.TIMEOUT])
@pytest.mark.parametrize("request_", POLLS + REFUSED, ids=named(POLLS + REFUSED))
async def test_no_answer_from_the_upstream_is_told_alike(bench, mode, fault, request_) -> None:
    """Submits come back in a second or two; polls are held so long, for they come back at once."""
    set_up = bench(mode)
    set_up.answer = fault
    if request_ in POLLS:
        waited, answer = await set_up.held(request_)
        assert 1 <= waited <= 10
        asked_again(answer, request_)
    else:
        obeyed(await set_up.ask(request_), 1, 10)
    assert set_up.breaker.snapshot("u", "k")["counts"]["failure"] == 1


@MODES
@pytest.mark.parametrize("status", [400, 402, 404, 408, 409, 410, 429, 500, 502, 503])
@pytest.mark.parametrize("request_", POLLS + REFUSED + HEARTBEATS)
async def test_the_upstreams_own_refusals_stay_its_own(bench, mode, status, request_) -> None:
    """Status, body and Retry-After as the upstream gave them, and no others.

    Only a poll's 5xx comes a little later: the SDK repeats it at once.
    """
    set_up = bench(mode)
    headers = {"content-type": "application/json", "retry-after": "3"}
    set_up.answer = Response(status, headers, b'{"detail":"mine"}')
    waited, answer = await set_up.held(request_)
    assert (waited >= 1) is (request_ in POLLS and status >= 500)
    assert (answer.status_code, answer.content) == (status, b'{"detail":"mine"}')
    assert answer.headers["retry-after"] == "3"


@MODES
@pytest.mark.parametrize("advance", [0, 31], ids=["open", "half open"])
async def test_heartbeats_go_up_whatever_the_breaker(bench, mode, advance) -> None:
    """A session that misses them takes its models with it; and they say nothing to the breaker."""
    set_up = bench(mode)
    set_up.trip()
    set_up.clock.advance(advance)
    if advance:
        set_up.breaker.acquire()
    before = set_up.breaker.snapshot("u", "k")
    for _ in range(3):
        assert (await set_up.ask(HEARTBEATS[0])).status_code == 200
    assert len(set_up.transport.requests) == 3
    assert set_up.breaker.snapshot("u", "k") == before


@MODES
async def test_a_heartbeat_that_gets_no_answer_is_told_so_at_once(bench, mode) -> None:
    """The SDK waits ten seconds for it and sends the next one then."""
    set_up = bench(mode)
    set_up.answer = Fault.CONNECT
    obeyed(await set_up.ask(HEARTBEATS[0]), 1, 10)


@MODES
async def test_the_breaker_of_one_key_refuses_no_other(bench, mode) -> None:
    set_up = bench(mode)
    set_up.trip()
    for headers in ({"x-api-key": "tml-other"}, {}):
        answer = await set_up.client.get("/api/v1/get_server_capabilities", headers=headers)
        assert answer.status_code == 200


@MODES
async def test_refusals_spread_the_clients_that_come_back(bench, mode) -> None:
    """Told the same second, all of them would be there in it: the SDK obeys to the second."""
    set_up = bench(mode)
    set_up.trip()
    asked = [await set_up.ask(SUBMITS[0]) for _ in range(200)]
    waits = Counter(answer.headers["retry-after-ms"] for answer in asked)
    assert max(waits.values()) < 20


@MODES
async def test_a_long_poll_is_no_probe(bench, mode) -> None:
    """It is held for minutes, and all others would be refused meanwhile: a question goes first."""
    set_up = bench(mode)
    set_up.trip()
    set_up.clock.advance(31)
    for request in POLLS:
        assert (await set_up.ask(request)).status_code == 200
    paths = [up.path.removeprefix("/api/v1/") for up in set_up.transport.requests]
    assert paths == ["healthz", "retrieve_future", "retrieve_futures"]
    assert set_up.breaker.snapshot("u", "k")["state"] == "closed"


@MODES
async def test_a_probe_in_a_polls_place_that_fails_keeps_the_poll_here(bench, mode) -> None:
    set_up = bench(mode)
    set_up.trip()
    set_up.clock.advance(31)
    set_up.answer = Fault.CONNECT
    _, answer = await set_up.held(POLLS[0])
    asked_again(answer, POLLS[0])
    assert not set_up.sent(POLLS[0])
    assert set_up.breaker.snapshot("u", "k")["counts"]["failure"] == 6


@MODES
async def test_a_probe_that_learns_nothing_is_not_repeated_for_ever(bench, mode) -> None:
    """An upstream that answers 429 to its health check: the poll itself goes up then."""
    set_up = bench(mode)
    set_up.trip()
    set_up.clock.advance(31)
    set_up.answer = Response(429, {"content-type": "application/json"}, b"{}")
    assert (await set_up.ask(POLLS[0])).status_code == 429
    assert len(set_up.transport.requests) == 6


async def test_an_upstream_that_is_to_rest_is_asked_nothing(bench) -> None:
    """Not even how it takes its bodies."""
    set_up = bench("lane")
    set_up.trip()
    assert (await set_up.ask(TRAINING[0])).status_code == 503
    assert set_up.transport.requests == []
