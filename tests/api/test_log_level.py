"""`/log`: the level of a running proxy, looked at and changed."""

import logging

import pytest
import structlog

from tinkex_proxy.runtime.logs import configure_logs


@pytest.fixture(autouse=True)
def _logs_as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs("info", "json")
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("tinkex_proxy").setLevel(logging.NOTSET)
    structlog.reset_defaults()


async def test_the_level_changes_while_the_proxy_runs(proxy, capsys) -> None:
    model_id = await proxy.create()
    assert (await proxy.client.get("/log")).json() == {"level": "info"}
    answer = await proxy.post("/log/debug")
    assert (answer.status_code, answer.json()) == (200, {"level": "debug"})
    assert (await proxy.client.get("/log")).json() == {"level": "debug"}
    body = {"model_id": model_id, "adam_params": {"learning_rate": 0.1}}
    loud = await proxy.post("/v1/optim_step", body)
    await proxy.post("/log/info")
    quiet = await proxy.post("/v1/optim_step", body)
    said = capsys.readouterr().err
    assert loud.headers["x-request-id"] in said
    assert quiet.headers["x-request-id"] not in said


async def test_a_level_that_there_is_not_is_refused_and_changes_nothing(proxy) -> None:
    answer = await proxy.post("/log/loud")
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_request"
    assert "debug, info, warning, error" in answer.json()["detail"]
    assert (await proxy.client.get("/log")).json() == {"level": "info"}


async def test_a_foreign_page_cannot_change_it(proxy) -> None:
    answer = await proxy.post("/log/debug", origin="http://elsewhere.example")
    assert answer.status_code == 403
    assert (await proxy.client.get("/log")).json() == {"level": "info"}
