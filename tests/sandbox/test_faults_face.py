"""Faults while the sandbox runs."""

import pytest

PATH = "/sandbox/faults"
OUTAGE = {"faults": [{"kind": "error", "status": 503}]}


async def test_a_plan_is_set_told_and_ended(sandbox) -> None:
    assert (await sandbox.get("/api/v1/healthz")).status_code == 200
    assert (await sandbox.client.put(PATH, json=OUTAGE)).json()["hits"] == [0]
    assert (await sandbox.get("/api/v1/healthz")).status_code == 503
    sandbox.clock.seconds += 2.5
    told = (await sandbox.get(PATH)).json()
    assert (told["hits"], told["running_s"], told["seed"]) == ([1], 2.5, 0)
    assert told["faults"][0]["kind"] == "error"
    assert (await sandbox.client.delete(PATH)).json()["faults"] == []
    assert (await sandbox.get("/api/v1/healthz")).status_code == 200


async def test_what_is_told_can_be_set_again(sandbox) -> None:
    told = (await sandbox.client.put(PATH, json=OUTAGE)).json()
    again = {"seed": told["seed"], "faults": told["faults"]}
    assert (await sandbox.client.put(PATH, json=again)).json() == told


async def test_a_plan_that_hits_everything_does_not_hit_its_own_end(sandbox) -> None:
    everything = {"faults": [{"kind": "reset", "path": "/*"}]}
    await sandbox.client.put(PATH, json=everything)
    assert (await sandbox.client.delete(PATH)).status_code == 200


async def test_a_bad_plan_is_refused_and_the_old_one_stays(sandbox) -> None:
    await sandbox.client.put(PATH, json=OUTAGE)
    bad = {"faults": [{"kind": "error", "state": 503}]}
    answer = await sandbox.client.put(PATH, json=bad)
    assert answer.status_code == 422
    assert "faults[0]: error has no 'state'; it has" in answer.json()["detail"]
    assert (await sandbox.get("/api/v1/healthz")).status_code == 503


async def test_other_methods_are_refused(sandbox) -> None:
    assert (await sandbox.client.post(PATH, json=OUTAGE)).status_code == 405


@pytest.mark.parametrize("how", ["now", "fault"])
async def test_sessions_end_when_they_are_told_to(sandbox, how: str) -> None:
    session = await sandbox.session()
    model_id = await sandbox.model(session)
    if how == "now":
        assert (await sandbox.client.delete("/sandbox/sessions")).json() == {"ended": [session]}
    else:
        await sandbox.client.put(PATH, json={"faults": [{"kind": "expire"}]})
    beat = {"session_id": session}
    assert (await sandbox.post("session_heartbeat", beat)).status_code == 410
    assert (await sandbox.get(f"/sandbox/models/{model_id}")).status_code == 404
    new = {"session_id": await sandbox.session()}
    assert (await sandbox.post("session_heartbeat", new)).status_code == 200
