"""The official SDKs at `/api/v1`: the same numbers, and refusals in the upstream's own shape."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api.programs import sdk_environment
from tests.e2e.sdk_runs import assert_same
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.runtime.events import CallTimed, Event, Note

SESSION = Path(__file__).parents[1] / "sandbox" / "sdk_session.py"


def opened(proxy, seconds: float = 30.0) -> None:
    """Trip the breaker of callers without a key."""
    breaker = proxy.proxy.services.accounts.of(None).upstream.breaker
    for _ in range(5):
        breaker.settle(breaker.acquire(), Outcome.FAILURE, "503")


async def test_with_the_breaker_open_submits_are_told_when_to_come_back(passing, recorder) -> None:
    """With jitter, so that not all clients come back at once, and never above the SDK's minute."""
    opened(passing)
    waits = []
    for _ in range(20):
        answer = await passing.client.post("/api/v1/optim_step", json={})
        assert answer.status_code == 503
        assert "breaker" in answer.json()["detail"]
        waits.append(int(answer.headers["retry-after"]))
    assert 29 <= min(waits) < max(waits) <= 60
    assert recorder.requests == []


@pytest.mark.parametrize("mode", ["lane", "transparent"])
async def test_a_refusal_and_its_line_in_the_log_name_the_same_request(
    start, recorder, mode
) -> None:
    proxy = await start(recorder.url, sdk={"mode": mode})
    opened(proxy)
    told: list[dict[str, object]] = []

    class Listener:
        def on_event(self, event: Event) -> None:
            match event:
                case Note():
                    told.append(dict(event.fields))
                case CallTimed():
                    trace_id = event.whose.trace.trace_id
                    told.append({"request_id": event.whose.request_id, "trace_id": trace_id})

    proxy.proxy.services.hub._listeners += (Listener(),)
    trace = "0af7651916cd43dd8448eb211c80319c"
    named = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    answer = await proxy.client.post("/api/v1/optim_step", json={}, headers=named)
    assert answer.status_code == 503
    (line,) = told
    assert (line["request_id"], line["trace_id"]) == (answer.headers["x-request-id"], trace)


async def test_with_the_breaker_open_polls_are_held_and_heartbeats_pass(start, recorder) -> None:
    proxy = await start(recorder.url, circuit_breaker={"timeout_ms": 300})
    opened(proxy)
    began = asyncio.get_running_loop().time()
    poll = asyncio.ensure_future(
        proxy.client.post("/api/v1/retrieve_future", json={"request_id": "7"})
    )
    beat = await proxy.client.post("/api/v1/session_heartbeat", json={"session_id": "s"})
    assert beat.status_code == 200
    answer = await poll
    assert answer.status_code == 408
    told = answer.json()
    assert (told["type"], told["request_id"]) == ("try_again", "7")
    assert "breaker" in told["queue_state_reason"]
    assert asyncio.get_running_loop().time() - began > 0.2
    again = await proxy.client.post("/api/v1/retrieve_future", json={"request_id": "7"})
    assert again.status_code == 200


async def test_an_upstream_that_is_not_there_is_told_in_its_own_shape(start, recorder) -> None:
    proxy = await start("http://127.0.0.1:1")
    answer = await proxy.client.get("/api/v1/get_server_capabilities")
    assert answer.status_code == 503
    assert "did not answer" in answer.json()["detail"]
    assert answer.headers["retry-after"] in {"1", "2"}


def sdk_session(url: str) -> dict[str, object]:
    ran = subprocess.run(
        [sys.executable, SESSION, url],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=sdk_environment(),
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("mode", ["lane", "transparent"])
async def test_the_official_sdk_sees_the_same_with_and_without_us(start, upstream, mode) -> None:
    """Train, save, resume, sample, ask, be refused: the same numbers, to the last digit.

    Only what the upstream or the proxy makes up differs: names of samples, ids of requests.
    """
    direct = await asyncio.to_thread(sdk_session, await upstream(max_chunk_len=3))
    proxy = await start(await upstream(max_chunk_len=3), sdk={"mode": mode})
    through = await asyncio.to_thread(sdk_session, proxy.url)
    for told in (direct, through):
        for drawn in told["samples"]:
            del drawn["names"]
        told["refusals"] = [re.sub("request_id='.*?'", "", said) for said in told["refusals"]]
    assert through == direct


PROGRAM = Path(__file__).parents[1] / "e2e" / "sdk_program.py"


def sdk_program(url: str, style: str) -> dict[str, object]:
    """What every kind of call sees, over more datums than one request may have too."""
    ran = subprocess.run(
        [sys.executable, PROGRAM, style, "3", "chunks"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=sdk_environment(TINKER_BASE_URL=url),
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("style", ["sync", "async"])
async def test_every_kind_of_call_sees_the_same_over_lanes(start, upstream, style) -> None:
    """`make e2e` does this with older SDKs too, in both modes, and with a custom loss."""
    direct = await asyncio.to_thread(sdk_program, await upstream(), style)
    proxy = await start(await upstream())
    through = await asyncio.to_thread(sdk_program, proxy.url, style)
    assert_same(through, direct)
    lanes = (await proxy.client.get("/lanes")).json()["lanes"]
    assert [lane["next_seq"] > 1 for lane in lanes] == [True] * len(direct["models"])


async def test_a_poll_that_we_cannot_take_is_held_too(start, recorder) -> None:
    """More keys than we keep: a poll answered 503 would be asked again at once, by each SDK."""
    proxy = await start(recorder.url, upstream={"max_keys": 1})
    busy = proxy.proxy.services.accounts.of("tml-busy")
    busy.adopt({}, "m", "s")
    clock = proxy.proxy.services.clock
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock.sleep = sleep
    answer = await proxy.post("/api/v1/retrieve_future", {"request_id": "1"}, x_api_key="tml-other")
    assert (answer.status_code, answer.json()["type"]) == (408, "try_again")
    assert 30 <= slept[0] <= 40
    submit = await proxy.post("/api/v1/optim_step", {"model_id": "m"}, x_api_key="tml-other")
    assert submit.status_code == 503
