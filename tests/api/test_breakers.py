import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.api.conftest import listening
from tests.api.doors import answer as answered
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options

FIELDS = {
    "id",
    "upstream",
    "key_id",
    "state",
    "consecutive_failures",
    "failure_threshold",
    "opened_at",
    "retry_after_s",
    "probes_in_flight",
    "generation",
    "transitions",
    "last_error",
    "counts",
}


def breaker_of(proxy):
    return proxy.proxy.services.accounts.of_default().upstream.breaker


def fail(proxy, times: int) -> None:
    breaker = breaker_of(proxy)
    for _ in range(times):
        breaker.settle(breaker.acquire(), Outcome.FAILURE, "answered 503")


def code(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_all_and_one_by_one(proxy) -> None:
    await proxy.create()
    (breaker,) = (await proxy.client.get("/breakers")).json()["breakers"]
    shown = (await proxy.client.get(f"/breakers/{breaker['id']}")).json()
    assert shown == breaker
    assert set(shown) == FIELDS


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/explain"),
        ("POST", "/open"),
        ("POST", "/close"),
        ("POST", "/disable"),
        ("POST", "/reset"),
    ],
)
async def test_a_breaker_that_is_not_there_is_not_there(proxy, method: str, path: str) -> None:
    answer = await proxy.client.request(method, f"/breakers/nope{path}")
    assert code(answer) == (404, "route_not_found")
    assert "GET /breakers lists them" in answer.json()["detail"]


async def test_forced_open_calls_are_refused_and_told_why_until_it_is_reset(proxy) -> None:
    model_id = await proxy.create()
    url = f"/breakers/{breaker_of(proxy).id}"
    shown = (await proxy.post(f"{url}/open", {"ttl_s": 60})).json()
    assert (shown["state"], shown["forced"]["to"]) == ("forced_open", "open")
    assert 59 < shown["forced"]["for_s"] <= 60
    refused = await proxy.post("/v1/optim_step", {"model_id": model_id})
    assert code(refused) == (503, "circuit_open")
    assert "an operator forced it open" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) <= 60
    shown = (await proxy.post(f"{url}/reset")).json()
    assert shown["state"] == "closed"
    assert set(shown) == FIELDS
    assert (await proxy.post("/v1/optim_step", {"model_id": model_id})).status_code == 200


async def test_held_closed_it_does_not_trip_and_disabled_it_does_not_count(proxy) -> None:
    url = f"/breakers/{breaker_of(proxy).id}"
    fail(proxy, 5)
    assert (await proxy.client.get(url)).json()["state"] == "open"
    assert (await proxy.post(f"{url}/close")).json()["state"] == "closed"
    fail(proxy, 20)
    shown = (await proxy.client.get(url)).json()
    assert (shown["state"], shown["consecutive_failures"]) == ("closed", 20)
    assert shown["forced"] == {"to": "close", "for_s": None}
    assert (await proxy.post(f"{url}/disable?ttl_s=0.5")).json()["state"] == "disabled"
    fail(proxy, 20)
    assert (await proxy.client.get(url)).json()["consecutive_failures"] == 0
    text = (await proxy.client.get("/metrics")).text
    states = [line for line in text.splitlines() if "circuit_breaker_state{" in line]
    assert [line for line in states if line.endswith(" 1.0")] != []
    assert all('"disabled"' in line for line in states if line.endswith(" 1.0"))


@pytest.mark.parametrize(
    ("action", "query", "body", "said"),
    [
        ("open", "?ttl_s=0", None, "seconds above 0"),
        ("open", "?ttl_s=-1", None, "seconds above 0"),
        ("open", "?ttl_s=nan", None, "seconds above 0"),
        ("open", "?ttl_s=inf", None, "at most 31536000"),
        ("open", "?ttl_s=soon", None, "ttl_s"),
        ("close", "", b'{"ttl": 5}', "ttl"),
        ("close", "", b'{"ttl_s": "5"}', "ttl_s"),
        ("close", "", b"[5]", "ttl_s"),
        ("disable", "", b"ttl_s=5", "ttl_s"),
        ("disable", "", b" " * 2000, "longer than 1024 bytes"),
        ("disable", "?ttl_s=5", b'{"ttl_s": 5}', "wanted once"),
        ("reset", "?ttl_s=5", None, "takes no ttl_s"),
    ],
)
async def test_a_bad_time_is_refused_and_changes_nothing(proxy, action, query, body, said) -> None:
    url = f"/breakers/{breaker_of(proxy).id}"
    answer = await proxy.client.post(f"{url}/{action}{query}", content=body)
    assert code(answer) == (422, "invalid_request")
    assert said in answer.json()["detail"]
    assert (await proxy.client.get(url)).json()["generation"] == 0


@pytest.mark.parametrize("action", ["open", "close", "disable", "reset"])
@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"origin": "https://evil.example"}, (403, "foreign_origin")),
        ({"origin": "null"}, (403, "foreign_origin")),
        ({"sec-fetch-site": "cross-site"}, (403, "foreign_origin")),
        ({"host": "evil.example"}, (421, "foreign_host")),
    ],
)
async def test_no_web_page_can_take_over_a_breaker(proxy, action, headers, refused) -> None:
    url = f"/breakers/{breaker_of(proxy).id}"
    assert code(await proxy.client.post(f"{url}/{action}", headers=headers)) == refused
    assert (await proxy.client.get(url)).json()["generation"] == 0


async def test_explained_is_what_counted_what_did_not_and_what_came_late(proxy) -> None:
    breaker = breaker_of(proxy)
    late = breaker.acquire()
    breaker.settle(breaker.acquire(), Outcome.THROTTLED, "answered 429")
    breaker.settle(breaker.acquire(), Outcome.NEUTRAL, "cancelled")
    fail(proxy, 5)
    breaker.settle(late, Outcome.SUCCESS, "answered 200")
    told = (await proxy.client.get(f"/breakers/{breaker.id}/explain")).json()
    assert told["state"] == "open"
    assert told["because"] == "5 failures in a row (last: answered 503)"
    assert told["outcomes"] == {"counted": 5, "not_counted": 2, "late": 1, "rejected": 0}
    recent = [(one["outcome"], one["counted"], one["why_not"]) for one in told["recent"]]
    assert recent[0] == ("success", False, "its call began before the breaker last moved")
    assert recent[1] == ("failure", True, None)
    assert recent[-2:] == [
        ("neutral", False, "says nothing about the upstream"),
        ("throttled", False, "the upstream asked to slow down: it is there"),
    ]
    (after,) = told["would_change_it"]
    assert after["then"] == "half_open"
    assert [move["after"] for move in told["moves"]] == ["open"]


async def read_until(lines, wanted: str) -> list[str]:
    seen = []
    async for line in lines:
        seen.append(line)
        if line.startswith(wanted):
            return seen
    raise AssertionError(seen)


async def test_what_moves_is_told_as_it_moves_and_again_to_who_comes_back(proxy) -> None:
    url = f"/breakers/{breaker_of(proxy).id}"
    async with proxy.client.stream("GET", "/breakers/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        await read_until(lines, ": following")
        await proxy.post(f"{url}/open")
        seen = await read_until(lines, "data: ")
    told = json.loads(seen[-1].removeprefix("data: "))
    assert (told["before"], told["after"]) == ("closed", "forced_open")
    (last,) = [line.removeprefix("id: ") for line in seen if line.startswith("id: ")]
    while proxy.proxy.feed.readers:
        await asyncio.sleep(0)
    await proxy.post(f"{url}/reset")
    asked = {"last-event-id": last}
    async with proxy.client.stream("GET", "/breakers/events", headers=asked) as stream:
        seen = await read_until(stream.aiter_lines(), "data: ")
    assert json.loads(seen[-1].removeprefix("data: "))["after"] == "closed"


async def test_who_follows_does_not_hold_the_end_up(proxy) -> None:
    async with proxy.client.stream("GET", "/breakers/events") as stream:
        lines = stream.aiter_lines()
        await read_until(lines, ": following")
        await proxy.proxy.drain()
        assert [line async for line in lines if line] == []


async def told(lines) -> AsyncIterator[dict[str, object]]:
    """The events of a stream, one by one."""
    name = ""
    async for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield {"event": name, **json.loads(line.removeprefix("data: "))}


@asynccontextmanager
async def following(proxy) -> AsyncIterator[AsyncIterator[dict[str, object]]]:
    async with proxy.client.stream("GET", "/breakers/events") as stream:
        lines = stream.aiter_lines()
        await read_until(lines, ": following")
        yield told(lines)


async def test_what_is_forced_for_a_time_ends_with_it_and_an_elapsed_window_needs_no_traffic(
    proxy,
) -> None:
    """Nobody calls anything: the moves come by themselves, and a look finds what they said."""
    url = f"/breakers/{breaker_of(proxy).id}"
    async with following(proxy) as events:
        for action, during, after in (
            ("open", "forced_open", "half_open"),
            ("disable", "disabled", "closed"),
        ):
            shown = (await proxy.post(f"{url}/{action}?ttl_s=0.05")).json()
            assert (shown["state"], shown["forced"]["to"]) == (during, action)
            assert (await anext(events))["after"] == during
            assert (await anext(events))["after"] == after
            shown = (await proxy.client.get(url)).json()
            assert shown["state"] == after
            assert "forced" not in shown


async def test_an_outage_and_its_end_are_told_without_a_call(start, upstream) -> None:
    proxy = await start(await upstream(), circuit_breaker={"timeout_ms": 50})
    async with following(proxy) as events:
        fail(proxy, 5)
        assert (await anext(events))["after"] == "open"
        assert (await anext(events))["after"] == "half_open"
    (shown,) = (await proxy.client.get("/breakers")).json()["breakers"]
    assert (shown["state"], shown["retry_after_s"]) == ("half_open", 0)


class OneKeyFails:
    """A sandbox that is down for one key, and counts what that key asks."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._app = create_app(Options())
        self.asked = 0

    async def __call__(self, scope, receive, send) -> None:
        if dict(scope.get("headers", ())).get(b"x-api-key") == self._key:
            self.asked += 1
            await answered(send, 503, b'{"detail": "down for you"}')
        else:
            await self._app(scope, receive, send)


@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/create_session"])
async def test_the_outage_of_one_key_is_nobody_elses(start, path: str) -> None:
    """By either face: one key's breaker opens and its calls stay here, the other's trains on."""
    upstream = OneKeyFails("tml-down")
    async with listening(upstream) as url:
        proxy = await start(url)
        model_id = await proxy.create()
        theirs = {"x-api-key": "tml-down"}
        body = {"base_model": "sandbox/tiny-1"}
        states = {"closed"}
        while "open" not in states:
            await proxy.client.post(path, json=body, headers=theirs)
            shown = (await proxy.client.get("/breakers")).json()["breakers"]
            states = {one["state"] for one in shown if one["counts"]["failure"]}
        asked = upstream.asked
        refused = await proxy.client.post(path, json=body, headers=theirs)
        assert refused.status_code == 503
        assert "breaker" in refused.text
        assert upstream.asked == asked
        datum = {"tokens": [1], "targets": [2]}
        ours = await proxy.post("/v1/forward_backward", {"model_id": model_id, "data": [datum]})
        assert ours.status_code == 200
        shown = (await proxy.client.get("/breakers")).json()["breakers"]
        by_failures = {bool(one["counts"]["failure"]): one["state"] for one in shown}
        assert by_failures == {True: "open", False: "closed"}


async def test_an_idle_breaker_gives_way_with_its_series_and_is_told_to_be_gone(
    start, upstream
) -> None:
    proxy = await start(await upstream(), upstream={"max_keys": 2})

    async def comes(key: str) -> str:
        await proxy.client.get("/v1/models", headers={"x-api-key": key})
        accounts = proxy.proxy.services.accounts
        return accounts.of(key).upstream.breaker.id

    async with following(proxy) as events:
        first = await comes("tml-a")
        await proxy.post(f"/breakers/{first}/open?ttl_s=60")
        assert (await anext(events))["breaker"] == first
        assert first in (await proxy.client.get("/metrics")).text
        others = [await comes("tml-b"), await comes("tml-c")]
        gone = [await anext(events), await anext(events)]  # the proxy's own is the idlest
        assert [one["event"] for one in gone] == ["dropped", "dropped"]
        assert gone[1]["breaker"] == first
    assert code(await proxy.client.get(f"/breakers/{first}")) == (404, "route_not_found")
    shown = (await proxy.client.get("/breakers")).json()["breakers"]
    assert [one["id"] for one in shown] == others
    assert first not in (await proxy.client.get("/metrics")).text
    assert len(shown) == 2
