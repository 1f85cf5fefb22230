"""Reading forms and refusing them."""

import pytest


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("optim_step", b"{", "truncated"),
        ("optim_step", b"[]", "Expected `object`"),
        ("optim_step", b"{}", "missing required field `model_id`"),
        ("create_model", b'{"session_id":1}', "Expected `str`"),
        ("session_heartbeat", b"1", "Expected `object`"),
        ("retrieve_future", b"{}", "request_id"),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_and_says_why(
    sandbox, path: str, body: bytes, said: str
) -> None:
    answer = await sandbox.post(path, body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]


async def test_a_submit_is_answered_with_a_promise_and_its_model(sandbox) -> None:
    model_id = await sandbox.model()
    answer = await sandbox.post("optim_step", {"model_id": model_id})
    assert answer.json().keys() == {"request_id", "model_id"}
    assert answer.json()["model_id"] == model_id
