"""Service calls over HTTP."""

import pytest


async def test_it_says_what_it_is_and_what_it_offers(start) -> None:
    sandbox = await start(models=("sandbox/a", "sandbox/b"))
    health = (await sandbox.get("/api/v1/healthz")).json()
    assert health["status"] == "ok"
    assert "sandbox" in health["service"]
    offered = (await sandbox.get("/api/v1/get_server_capabilities")).json()["supported_models"]
    assert [model["model_name"] for model in offered] == ["sandbox/a", "sandbox/b"]


async def test_its_limits_are_told(start) -> None:
    sandbox = await start(max_chunk_len=7, max_chunk_bytes=800)
    config = (await sandbox.post("client/config", {"sdk_version": "0.38.0"})).json()
    assert config["fwdbwd_max_chunk_len"] == 7
    assert config["fwdbwd_max_chunk_bytes_count"] == 800
    assert config["pjwt_auth_enabled"] is False
    assert (await sandbox.post("client/dynamic_config")).status_code == 200
    assert (await sandbox.post("telemetry")).json() == {"status": "accepted"}


async def test_a_session_warns_that_it_is_one_of_a_sandbox(sandbox) -> None:
    assert "sandbox" in (await sandbox.post("create_session")).json()["info_message"]


async def test_a_session_lives_by_its_heartbeats_and_takes_its_models_with_it(
    start, training
) -> None:
    sandbox = await start(session_timeout_s=60.0)
    dying, living = await sandbox.session(), await sandbox.session()
    lost, kept = await sandbox.model(dying), await sandbox.model(living)
    late = await sandbox.submit("forward_backward", training(lost, 2))
    sandbox.clock.seconds += 40
    assert (await sandbox.post("session_heartbeat", {"session_id": living})).status_code == 200
    sandbox.clock.seconds += 40
    assert (await sandbox.post("session_heartbeat", {"session_id": dying})).status_code == 410
    assert (await sandbox.post("forward_backward", training(lost, 1))).status_code == 404
    assert (await sandbox.poll(late)).status_code == 410
    assert (await sandbox.call("forward_backward", training(kept, 1)))["metrics"]


async def test_a_model_does_not_outlive_its_session_even_when_nobody_asks_for_the_session(
    start, training
) -> None:
    sandbox = await start(session_timeout_s=60.0)
    model_id = await sandbox.model()
    sandbox.clock.seconds += 61
    assert (await sandbox.post("forward_backward", training(model_id, 1))).status_code == 404


@pytest.mark.parametrize("session", ["session_x", ""])
async def test_a_session_that_never_was_is_not_found(sandbox, session: str) -> None:
    assert (await sandbox.post("session_heartbeat", {"session_id": session})).status_code == 404


async def test_a_session_can_be_finished_and_finished_again(sandbox) -> None:
    session = await sandbox.session()
    model_id = await sandbox.model(session)
    for _ in range(2):
        assert (await sandbox.post(f"sessions/{session}/finish")).status_code == 200
    assert (await sandbox.post("session_heartbeat", {"session_id": session})).status_code == 410
    assert (await sandbox.post("get_info", {"model_id": model_id})).status_code == 404
