"""Models, checkpoints and samplers: how they are made, by whom, and how often."""

import pytest

MODEL = "sandbox/tiny-1"
PROMPT = {"chunks": [{"tokens": [3, 1]}]}


def creation(session: str, **fields: object) -> dict[str, object]:
    return {"session_id": session, "model_seq_id": 0, "base_model": MODEL, **fields}


async def test_a_model_is_named_after_its_session_and_number(sandbox) -> None:
    """The SDK derives the same name by itself when it creates from a checkpoint."""
    session = await sandbox.session()
    assert await sandbox.model(session, 3) == f"{session}:train:3"


async def test_creating_again_is_the_same_request_and_another_model_is_a_conflict(sandbox) -> None:
    session = await sandbox.session()
    first = await sandbox.submit("create_model", creation(session))
    assert await sandbox.submit("create_model", creation(session)) == first
    other = creation(session, lora_config={"rank": 2})
    assert (await sandbox.post("create_model", other)).status_code == 409


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"base_model": "meta/llama"}, 404),
        ({"lora_config": {"rank": 0}}, 400),
        ({"lora_config": {"rank": 65}}, 400),
        ({"session_id": "session_x"}, 404),
    ],
)
async def test_a_model_that_cannot_be_made_is_refused(sandbox, fields, status: int) -> None:
    body = {**creation(await sandbox.session()), **fields}
    assert (await sandbox.post("create_model", body)).status_code == status


async def test_rank_has_a_default_and_the_seed_decides_the_start(sandbox) -> None:
    session = await sandbox.session()
    digests = []
    for number, lora in enumerate((None, {"rank": 32}, {"rank": 32, "seed": 1})):
        body = creation(session, model_seq_id=number, lora_config=lora)
        model_id = (await sandbox.call("create_model", body))["model_id"]
        digests.append((await sandbox.inspect(model_id))["weights_digest"])
    assert digests[0] == digests[1] != digests[2]


async def trained(sandbox, training) -> str:
    """A model that has taken a step; its next number is 3."""
    model_id = await sandbox.model()
    await sandbox.submit("forward_backward", training(model_id, 1))
    await sandbox.call("optim_step", {"model_id": model_id, "seq_id": 2})
    return model_id


@pytest.fixture
async def saved(sandbox, training) -> tuple[str, str]:
    """A trained model and the path of its checkpoint; its next number is 4."""
    model_id = await trained(sandbox, training)
    body = {"model_id": model_id, "seq_id": 3, "path": "ck"}
    return model_id, (await sandbox.call("save_weights", body))["path"]


async def test_a_checkpoint_is_loaded_into_a_model(sandbox, saved) -> None:
    model_id, path = saved
    assert path == f"tinker://{model_id}/weights/ck"
    other = await sandbox.model(number=1)
    await sandbox.call("load_weights", {"model_id": other, "seq_id": 1, "path": path})
    ours, theirs = await sandbox.inspect(model_id), await sandbox.inspect(other)
    assert ours["weights_digest"] == theirs["weights_digest"]
    assert (ours["steps"], theirs["steps"]) == (1, 0)


@pytest.mark.parametrize(("optimizer", "steps"), [(True, 1), (False, 0)])
async def test_a_model_is_made_from_a_checkpoint_in_one_call(
    sandbox, saved, training, optimizer: bool, steps: int
) -> None:
    model_id, path = saved
    session = await sandbox.session()
    body = {"session_id": session, "model_seq_id": 5, "path": path, "optimizer": optimizer}
    assert (await sandbox.call("load_weights", body))["type"] == "load_weights"
    made = await sandbox.inspect(f"{session}:train:5")
    assert made["weights_digest"] == (await sandbox.inspect(model_id))["weights_digest"]
    assert made["steps"] == steps
    await sandbox.call("forward_backward", training(f"{session}:train:5", 1))


async def test_making_it_again_leaves_it_where_it_is(sandbox, saved, training) -> None:
    """A client that lost the answer sends it again, perhaps when the model has gone on."""
    _, path = saved
    session = await sandbox.session()
    body = {"session_id": session, "model_seq_id": 5, "path": path, "optimizer": True}
    first = await sandbox.submit("load_weights", body)
    await sandbox.call("forward_backward", training(f"{session}:train:5", 1))
    assert await sandbox.submit("load_weights", body) == first
    await sandbox.call("forward_backward", training(f"{session}:train:5", 2))
    seen = await sandbox.inspect(f"{session}:train:5")
    assert (seen["next_seq"], seen["datums_since_step"]) == (3, 2)


async def test_loading_needs_a_checkpoint_and_a_place(sandbox, saved) -> None:
    _, path = saved
    assert (await sandbox.post("load_weights", {"path": path})).status_code == 422
    body = {"model_id": saved[0], "path": "tinker://m/weights/none"}
    assert (await sandbox.post("load_weights", body)).status_code == 404


async def test_a_checkpoints_name_is_taken_unless_it_is_to_be_overwritten(sandbox, saved) -> None:
    """The refusal comes with the result: the name may be taken only when its turn comes."""
    body = {"model_id": saved[0], "path": "ck"}
    answer = await sandbox.call("save_weights", body)
    assert answer["category"] == "user"
    assert "already exists" in answer["error"]
    assert (await sandbox.call("save_weights", {**body, "overwrite": True}))["path"] == saved[1]


async def test_an_unnamed_checkpoint_gets_a_name(sandbox, saved) -> None:
    answer = await sandbox.call("save_weights", {"model_id": saved[0]})
    assert answer["path"].startswith(f"tinker://{saved[0]}/weights/")
    assert answer["path"] != saved[1]


async def greedy(sandbox, **where: object) -> list[int]:
    body = {
        "prompt": PROMPT,
        "sampling_params": {"max_tokens": 6, "temperature": 0.0},
        "num_samples": 1,
        **where,
    }
    return (await sandbox.call("asample", body))["sequences"][0]["tokens"]


async def test_weights_are_sampled_from_by_path_session_or_transiently(sandbox, training) -> None:
    model_id = await sandbox.model()
    for seq_id in range(1, 40, 2):
        await sandbox.submit("forward_backward", training(model_id, seq_id, [3, 1, 4, 1, 5]))
        rate = {"learning_rate": 0.05}
        step = {"model_id": model_id, "seq_id": seq_id + 1, "adam_params": rate}
        await sandbox.submit("optim_step", step)
    named = {"model_id": model_id, "seq_id": 41, "path": "s"}
    path = (await sandbox.call("save_weights_for_sampler", named))["path"]
    assert path == f"tinker://{model_id}/sampler_weights/s"
    transient = {"model_id": model_id, "seq_id": 42, "sampling_session_seq_id": 0}
    answer = await sandbox.call("save_weights_for_sampler", transient)
    assert answer["path"] is None
    session = {"session_id": await sandbox.session(), "model_path": path}
    opened = (await sandbox.post("create_sampling_session", session)).json()["sampling_session_id"]
    drawn = [
        await greedy(sandbox, model_path=path),
        await greedy(sandbox, sampling_session_id=answer["sampling_session_id"]),
        await greedy(sandbox, sampling_session_id=opened),
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    assert drawn[0][:3] == [4, 1, 5]
    assert (await greedy(sandbox, base_model=MODEL))[:3] != [4, 1, 5]


async def test_saved_weights_do_not_change_when_training_goes_on(sandbox, saved, training) -> None:
    model_id, _ = saved
    body = {"model_id": model_id, "seq_id": 4, "path": "s"}
    path = (await sandbox.call("save_weights_for_sampler", body))["path"]
    before = await greedy(sandbox, model_path=path)
    await sandbox.submit("forward_backward", training(model_id, 5, [3, 1, 9, 9, 9, 9]))
    step = {"model_id": model_id, "seq_id": 6, "adam_params": {"learning_rate": 1.0}}
    await sandbox.call("optim_step", step)
    assert await greedy(sandbox, model_path=path) == before


async def test_saving_for_a_sampler_needs_a_name_or_a_session(sandbox) -> None:
    body = {"model_id": await sandbox.model()}
    assert (await sandbox.post("save_weights_for_sampler", body)).status_code == 422
