from pathlib import Path

import msgspec
import pytest

from tinkex_proxy import errors
from tinkex_proxy.api.problems import PROBLEM_JSON, STATUS, problem_answer

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_every_error_has_a_status_and_every_status_an_error() -> None:
    """The list of codes is closed."""
    assert {cls.code for cls in CLASSES} == set(STATUS)


def test_every_code_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    documented = {line.split("`")[1] for line in text.splitlines() if line.startswith("| `")}
    assert documented == set(STATUS)


@pytest.mark.parametrize("cls", CLASSES)
def test_a_problem_document(cls: type[errors.ProxyError]) -> None:
    """RFC 9457 members, and ours."""
    answer = problem_answer(cls("Because."), instance="/v1/x", request_id="r")
    body = msgspec.json.decode(answer.body)
    assert answer.status == body["status"] == STATUS[cls.code][0]
    assert answer.headers["content-type"] == PROBLEM_JSON
    assert body["type"] == f"urn:tinkex-proxy:problem:{cls.code}"
    assert body["detail"] == "Because."
    assert (body["instance"], body["request_id"]) == ("/v1/x", "r")
    assert body["retryable"] is cls.retryable is answer.retryable


def test_retry_after_is_whole_seconds_and_never_zero() -> None:
    for seconds, header in ((0.2, "1"), (17.2, "18"), (None, None)):
        error = errors.CircuitOpen("x", retry_after_s=seconds)
        answer = problem_answer(error, instance="/", request_id="r")
        assert answer.headers.get("retry-after") == header


def test_a_pointer_names_the_field() -> None:
    error = errors.InvalidRequest("x", pointer="/data/0")
    body = msgspec.json.decode(problem_answer(error, instance="/", request_id="r").body)
    assert body["pointer"] == "/data/0"


def test_a_request_the_user_spoilt_is_not_the_upstreams_fault() -> None:
    for category, status in (("user", 422), ("server", 502), ("unknown", 502)):
        error = errors.UpstreamFailed("x", category=category)
        answer = problem_answer(error, instance="/", request_id="r")
        assert answer.status == status
        assert msgspec.json.decode(answer.body)["category"] == category
