"""What can be asked about models, checkpoints, samplers and sessions."""

import pytest

MODEL = "sandbox/tiny-1"


async def test_models_are_told_about(sandbox) -> None:
    session = await sandbox.session()
    ids = [await sandbox.model(session, number, rank=3) for number in range(3)]
    info = (await sandbox.post("get_info", {"model_id": ids[0]})).json()
    assert (info["model_id"], info["lora_rank"], info["is_lora"]) == (ids[0], 3, True)
    assert info["model_data"]["model_name"] == info["model_data"]["base_model"] == MODEL
    assert info["model_data"]["arch"] == "sandbox"
    listed = (await sandbox.get("/api/v1/training_runs")).json()
    assert [run["training_run_id"] for run in listed["training_runs"]] == ids
    one = (await sandbox.get(f"/api/v1/training_runs/{ids[1]}")).json()
    assert one == listed["training_runs"][1]
    assert (one["lora_rank"], one["base_model"]) == (3, MODEL)
    of_session = (await sandbox.get(f"/api/v1/sessions/{session}")).json()
    assert of_session["training_run_ids"] == ids


async def test_lists_are_given_in_pages(sandbox) -> None:
    session = await sandbox.session()
    ids = [await sandbox.model(session, number) for number in range(3)]
    page = (await sandbox.get("/api/v1/training_runs?limit=1&offset=1")).json()
    assert [run["training_run_id"] for run in page["training_runs"]] == ids[1:2]
    assert page["cursor"] == {"offset": 1, "limit": 1, "total_count": 3}
    assert (await sandbox.get("/api/v1/sessions?limit=x")).status_code == 422


async def test_checkpoints_are_listed_told_about_and_deleted(sandbox) -> None:
    model_id = await sandbox.model(rank=3)
    other = await sandbox.model(number=1)
    for model, path, name in (
        (model_id, "save_weights", "a"),
        (model_id, "save_weights_for_sampler", "b"),
        (other, "save_weights", "c"),
    ):
        await sandbox.call(path, {"model_id": model, "path": name})
    mine = f"/api/v1/training_runs/{model_id}/checkpoints"
    listed = (await sandbox.get(mine)).json()["checkpoints"]
    told = [(one["checkpoint_id"], one["checkpoint_type"]) for one in listed]
    assert told == [("weights/a", "training"), ("sampler_weights/b", "sampler")]
    assert listed[0]["tinker_path"] == f"tinker://{model_id}/weights/a"
    assert len((await sandbox.get("/api/v1/checkpoints")).json()["checkpoints"]) == 3
    path = {"tinker_path": listed[0]["tinker_path"]}
    weights = (await sandbox.post("weights_info", path)).json()
    assert weights == {"base_model": MODEL, "is_lora": True, "lora_rank": 3}
    assert (await sandbox.client.delete(f"{mine}/weights/a")).status_code == 200
    assert (await sandbox.client.delete(f"{mine}/weights/a")).status_code == 404
    assert (await sandbox.post("weights_info", path)).status_code == 404


async def test_samplers_are_told_about(sandbox) -> None:
    body = {"session_id": await sandbox.session(), "base_model": MODEL}
    sampler = (await sandbox.post("create_sampling_session", body)).json()["sampling_session_id"]
    told = (await sandbox.get(f"/api/v1/samplers/{sampler}")).json()
    assert told == {"sampler_id": sampler, "base_model": MODEL, "model_path": None}


@pytest.mark.parametrize(
    "path", ["training_runs/m", "samplers/s", "sessions/session_x", "training_runs/m/nothing"]
)
async def test_what_is_not_there_is_not_found(sandbox, path: str) -> None:
    assert (await sandbox.get(f"/api/v1/{path}")).status_code == 404


async def test_models_whose_session_ended_are_not_listed(sandbox) -> None:
    model_id = await sandbox.model()
    sandbox.clock.seconds += 1000
    assert (await sandbox.get("/api/v1/training_runs")).json()["training_runs"] == []
    assert (await sandbox.get(f"/sandbox/models/{model_id}")).status_code == 404


async def test_inspection_counts_what_was_applied(sandbox, training) -> None:
    model_id = await sandbox.model()
    start = await sandbox.inspect(model_id)
    assert (start["steps"], start["datums_since_step"], start["next_seq"]) == (0, 0, 1)
    await sandbox.call("forward_backward", training(model_id, 1, [1, 2], [3, 4]))
    early = training(model_id, 3)
    early["forward_input"] = early.pop("forward_backward_input")
    await sandbox.submit("forward", early)
    seen = await sandbox.inspect(model_id)
    assert (seen["datums_since_step"], seen["next_seq"], seen["waiting"]) == (2, 2, [3])
    assert seen["weights_digest"] == start["weights_digest"]
    assert seen["gradient_norm"] > start["gradient_norm"] == 0
    step = await sandbox.call("optim_step", {"model_id": model_id, "seq_id": 2})
    assert step["metrics"]["grad_norm"] == seen["gradient_norm"]
    after = await sandbox.inspect(model_id)
    assert (after["steps"], after["gradient_norm"]) == (1, 0)
    assert after["weights_digest"] != start["weights_digest"]
