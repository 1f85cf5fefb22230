"""The gate: who is let in, and that nobody can take the sandbox for a service."""

import pytest


@pytest.mark.parametrize("key", [None, "tml-anything", ""])
async def test_without_a_list_of_keys_everybody_is_let_in(sandbox, key) -> None:
    headers = {} if key is None else {"X_API_Key": key}
    assert (await sandbox.post("create_session", **headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "said"),
    [
        ({}, 401, "API key is missing"),
        ({"X_API_Key": "tml-wrong"}, 401, "Invalid API key"),
        ({"X_API_Key": ""}, 401, "Invalid API key"),
        ({"X_API_Key": "tml-right"}, 200, "session_id"),
    ],
)
async def test_with_a_list_only_its_keys_are(start, headers, status: int, said: str) -> None:
    sandbox = await start(api_keys=frozenset({"tml-right"}))
    answer = await sandbox.post("create_session", **headers)
    assert answer.status_code == status
    assert said in answer.text
    assert answer.headers["server"] == "tinkex-sandbox"


@pytest.mark.parametrize("path", ["/api/v1/healthz", "/api/v1/nothing", "/sandbox/models/x"])
async def test_every_answer_says_that_a_sandbox_gave_it(sandbox, path: str) -> None:
    assert (await sandbox.get(path)).headers["server"] == "tinkex-sandbox"
