"""Sampling and polling over HTTP."""

import asyncio

import pytest

MODEL = "sandbox/tiny-1"
PROTOBUF = "application/x-protobuf"
SAMPLE = {
    "prompt": {"chunks": [{"tokens": [3, 1]}]},
    "sampling_params": {"max_tokens": 3},
    "base_model": MODEL,
}


async def sampler(sandbox) -> str:
    body = {"session_id": await sandbox.session(), "base_model": MODEL}
    answer = await sandbox.post("create_sampling_session", body)
    assert answer.status_code == 200
    return answer.json()["sampling_session_id"]


async def test_a_sample_names_each_of_its_sequences(sandbox) -> None:
    answer = (await sandbox.post("asample", {**SAMPLE, "num_samples": 3})).json()
    assert len(set(answer["sample_sequence_ids"])) == 3
    drawn = (await sandbox.poll(answer["request_id"])).json()
    assert [len(sequence["tokens"]) for sequence in drawn["sequences"]] == [3, 3, 3]


async def test_a_sample_sent_again_is_the_same_sample(sandbox) -> None:
    body = {**SAMPLE, "base_model": None, "sampling_session_id": await sampler(sandbox)}
    first = (await sandbox.post("asample", {**body, "seq_id": 0})).json()
    assert (await sandbox.post("asample", {**body, "seq_id": 0})).json() == first
    other = {**body, "seq_id": 0, "num_samples": 2}
    assert (await sandbox.post("asample", other)).status_code == 409
    assert (await sandbox.post("asample", {**other, "seq_id": 7})).status_code == 200


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"num_samples": 0}, 400),
        ({"num_samples": 1025}, 400),
        ({"base_model": "other"}, 404),
        ({"base_model": None}, 404),
        ({"sampling_session_id": "sampling_x"}, 404),
        ({"model_path": "tinker://m/sampler_weights/none"}, 404),
        ({"prompt": {"chunks": [{"tokens": [512]}]}}, 400),
    ],
)
async def test_a_sample_that_cannot_be_drawn_is_refused(sandbox, fields, status: int) -> None:
    assert (await sandbox.post("asample", {**SAMPLE, **fields})).status_code == status


@pytest.mark.parametrize("fields", [{}, {"base_model": MODEL, "model_path": "tinker://m/w/s"}])
async def test_a_sampling_session_is_of_one_thing(sandbox, fields) -> None:
    body = {"session_id": await sandbox.session(), **fields}
    assert (await sandbox.post("create_sampling_session", body)).status_code == 400


async def test_clients_of_a_sampling_session_are_numbered(sandbox) -> None:
    body = {"sampling_session_id": await sampler(sandbox)}
    for number in (1, 2):
        answer = await sandbox.post("join_sampling_session", body)
        assert answer.json()["client_counter"] == number


async def test_a_poll_is_held_until_the_result_is_there(sandbox, training) -> None:
    model_id = await sandbox.model()
    late = await sandbox.submit("forward_backward", training(model_id, 2))
    polls = [asyncio.ensure_future(sandbox.poll(late)) for _ in range(2)]
    await sandbox.call("asample", SAMPLE)
    assert not any(poll.done() for poll in polls)
    await sandbox.submit("forward_backward", training(model_id, 1))
    answers = [poll.json() for poll in await asyncio.gather(*polls)]
    assert answers[0] == answers[1] == (await sandbox.poll(late)).json()


async def test_a_poll_that_was_held_for_nothing_is_answered_408(start, training) -> None:
    sandbox = await start(poll_hold_s=0.001)
    model_id = await sandbox.model()
    late = await sandbox.submit("forward_backward", training(model_id, 2))
    answer = await sandbox.poll(late)
    assert answer.status_code == 408
    assert answer.json()["type"] == "try_again"
    assert answer.json()["request_id"] == late
    assert answer.json()["queue_state"] == "active"


@pytest.mark.parametrize(("flavours", "media"), [("both", PROTOBUF), ("json", "application/json")])
async def test_a_result_comes_in_the_encoding_that_is_asked_for(
    start, training, flavours: str, media: str
) -> None:
    """The JSON generation of servers knows no other, whatever is asked for."""
    sandbox = await start(flavours=flavours)
    model_id = await sandbox.model()
    trained = await sandbox.submit("forward_backward", training(model_id, 1))
    drawn = await sandbox.submit("asample", SAMPLE)
    for request_id in (trained, drawn):
        body = {"request_id": request_id}
        answer = await sandbox.post("retrieve_future", body, accept=PROTOBUF)
        assert answer.headers["content-type"] == media
        answer = await sandbox.post("retrieve_future", body)
        assert answer.headers["content-type"] == "application/json"
    stepped = await sandbox.submit("optim_step", {"model_id": model_id})
    answer = await sandbox.post("retrieve_future", {"request_id": stepped}, accept=PROTOBUF)
    assert answer.headers["content-type"] == "application/json"


async def test_a_large_result_is_announced_where_that_is_allowed(start, training) -> None:
    sandbox = await start(metadata_above_bytes=100)
    request_id = await sandbox.submit("forward_backward", training(await sandbox.model(), 1))
    whole = await sandbox.poll(request_id)
    announced = (await sandbox.poll(request_id, allow_metadata_only=True)).json()
    assert announced == {
        "status": "complete_metadata",
        "response_payload_size": len(whole.content),
    }
    small = await start(metadata_above_bytes=len(whole.content))
    request_id = await small.submit("forward_backward", training(await small.model(), 1))
    assert (await small.poll(request_id, allow_metadata_only=True)).content == whole.content


async def test_what_was_never_promised_is_not_found_and_what_was_forgotten_is_gone(start) -> None:
    sandbox = await start(keep_results=1)
    forgotten = await sandbox.submit("asample", SAMPLE)
    await sandbox.submit("asample", SAMPLE)
    assert (await sandbox.poll(forgotten)).status_code == 410
    answer = await sandbox.poll("999")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Future not found"})


async def test_a_failed_request_says_so_with_200(sandbox, training) -> None:
    model_id = await sandbox.model()
    body = {"model_id": model_id, "path": "a"}
    await sandbox.call("save_weights", body)
    answer = await sandbox.poll(await sandbox.submit("save_weights", body))
    assert answer.status_code == 200
    assert answer.json().keys() == {"error", "category"}


async def test_a_cancellation_is_taken(sandbox) -> None:
    request_id = await sandbox.submit("asample", SAMPLE)
    assert (await sandbox.post("cancel_future", {"request_id": request_id})).status_code == 200
