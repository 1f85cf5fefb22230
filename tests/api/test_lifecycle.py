"""`/drain` and `/config/reload`; what comes of a drain is in tests/test_ending.py."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.api.conftest import Running, listening
from tinkex_proxy.assembly import build
from tinkex_proxy.config import Settings


class Reloadable:
    """A proxy with a file, in front of a sandbox."""

    def __init__(self, file: Path, upstream: str) -> None:
        self.file = file
        self._options = {"upstream.base_url": upstream}
        file.write_text("")

    def read(self) -> Settings:
        return Settings.load(self._options, self.file)


@pytest.fixture
async def layers(tmp_path: Path, upstream) -> Reloadable:
    return Reloadable(tmp_path / "proxy.toml", await upstream(tick_s=0.05))


@pytest.fixture
async def running(layers: Reloadable) -> AsyncIterator[Running]:
    proxy = build(layers.read(), reread=layers.read)
    async with (
        listening(proxy.app) as url,
        httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client,
    ):
        yield Running(url, proxy, client)


async def test_to_drain_is_asked_for_once_and_then_looked_at(running: Running) -> None:
    assert (await running.client.get("/drain")).json()["state"] == "serving"
    first = await running.post("/drain")
    assert (first.status_code, first.headers["location"]) == (202, "/drain")
    again = await running.post("/drain")
    assert (again.status_code, again.json()["asked_by"]) == (202, "POST /drain")
    assert running.proxy.ending.asked.is_set()
    assert not running.proxy.ending.hurried.is_set(), "only a second signal hurries"


async def test_a_reload_shows_in_the_configuration_in_force(
    running: Running, layers: Reloadable
) -> None:
    layers.file.write_text("[batching]\nwindow_ms = 20\n[server]\nport = 1234\n")
    answer = await running.post("/config/reload")
    assert answer.status_code == 200
    told = answer.json()
    assert told["changed"] == [{"setting": "batching.window_ms", "from": 5.0, "to": 20.0}]
    assert told["needs_restart"][0]["why"] == "the listener is opened once"
    config = (await running.client.get("/config")).json()
    assert (config["batching"]["window_ms"], config["server"]["port"]) == (20.0, 8465)


async def test_a_bad_file_is_told_with_every_problem_and_changes_nothing(
    running: Running, layers: Reloadable
) -> None:
    layers.file.write_text('[batching]\nwindow_ms = 20\nmax_batchsize = 3\n[lgo]\nlevel = "info"\n')
    answer = await running.post("/config/reload")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "bad_configuration")
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(problem["problems"]) == 2
    assert "the nearest known setting is batching.max_batch_size" in problem["problems"][0]
    config = (await running.client.get("/config")).json()
    assert config["batching"]["window_ms"] == 5.0


async def test_a_reload_disturbs_no_call_under_way(running: Running, layers: Reloadable) -> None:
    """Calls before, while and after; each reload changes how they share requests."""
    model_id = await running.create()
    body = {"model_id": model_id, "data": [{"tokens": [1], "targets": [2]}]}
    losses = set()
    for size in (1, 10, 2, 1):
        batching = f"[batching]\nmax_batch_size = {size}\nenabled = {str(size != 2).lower()}\n"
        layers.file.write_text(batching)
        calls = [
            await running.post("/v1/forward_backward", body, Prefer="respond-async")
            for _ in range(5)
        ]
        assert (await running.post("/config/reload")).is_success
        for call in calls:
            where = call.headers["location"]
            answer = await running.client.get(f"{where}?wait=30")
            assert answer.status_code == 200
            losses.add(answer.json()["loss"])
    assert len(losses) == 1


async def test_names_and_sizes_hold_from_the_next_request_on(
    running: Running, layers: Reloadable
) -> None:
    named = {"host": "box"}
    assert (await running.client.get("/health/live", headers=named)).status_code == 421
    large = b'{"base_model": "' + b"x" * 5000 + b'"}'
    assert (await running.post("/v1/models", large)).status_code != 413
    layers.file.write_text('[server]\nallowed_hosts = ["box"]\nmax_body_bytes = 2000\n')
    assert (await running.post("/config/reload")).is_success
    assert (await running.client.get("/health/live", headers=named)).status_code == 200
    assert (await running.post("/v1/models", large)).status_code == 413
