import json
from collections.abc import Callable

import httpx
import pytest

from tinkex_proxy.cli.demo.training import VERSES, Run, datum_of, readable
from tinkex_proxy.cli.exits import CommandError

Answer = Callable[[str, object], dict[str, object]]


def made_up(path: str, body: object) -> dict[str, object]:
    """A proxy that puts all callers of one step into one batch."""
    match path:
        case "/v1/capabilities":
            return {"models": [{"model_name": "toy"}]}
        case "/v1/models":
            return {"model_id": "m"}
        case "/v1/forward_backward":
            return {"loss": 10.0, "batch": {"id": "b-1", "requests": 4}}
        case "/v1/sample":
            return {"sequences": [{"tokens": [32, 104, 105, 300]}]}
        case _:
            return {}


def run_against(
    answer: Answer,
    seen: list[tuple[str, object]] | None = None,
    slept: list[float] | None = None,
    keys: list[str] | None = None,
) -> Run:
    def handle(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        if seen is not None:
            seen.append((request.url.path, body))
        if keys is not None and request.method == "POST":
            keys.append(request.headers["idempotency-key"])
        answered = answer(request.url.path, body)
        status, after = int(answered.pop("status", 200)), answered.pop("after", None)
        headers = {} if after is None else {"retry-after": str(after)}
        return httpx.Response(status, json=answered, headers=headers)

    client = httpx.Client(base_url="http://proxy", transport=httpx.MockTransport(handle))
    return Run(client, ([] if slept is None else slept).append)


def test_every_byte_predicts_the_next() -> None:
    assert datum_of("abc") == {"tokens": [97, 98], "targets": [98, 99]}


def test_only_printable_ascii_is_shown() -> None:
    assert readable([72, 105, 10, 200, 511]) == "Hi···"


def test_a_step_is_one_call_per_verse_and_one_optimizer_step() -> None:
    seen: list[tuple[str, object]] = []
    (step,) = run_against(made_up, seen).steps(1)
    paths = [path for path, _ in seen]
    assert paths.count("/v1/forward_backward") == len(VERSES)
    assert paths[-1] == "/v1/optim_step"
    assert step.calls == len(VERSES)
    assert step.requests == 1
    assert step.loss == pytest.approx(40.0 / sum(len(verse) - 1 for verse in VERSES))


def test_a_sample_shows_prompt_and_answer() -> None:
    assert run_against(made_up).sample() == "Four hi·"


def test_a_refusal_is_told_in_the_proxys_words() -> None:
    def refuse(path: str, body: object) -> dict[str, object]:
        if path != "/v1/sample":
            return made_up(path, body)
        return {"status": 502, "title": "Upstream fault", "detail": "It fell over."}

    with pytest.raises(CommandError, match=r"/v1/sample answered Upstream fault: It fell over."):
        run_against(refuse).sample()


def refusing(times: int, **fields: object) -> Answer:
    """A proxy that refuses the first samples."""
    left = [None] * times

    def answer(path: str, body: object) -> dict[str, object]:
        if path == "/v1/sample" and left:
            left.pop()
            return {"status": 503, "title": "Open", "detail": "wait", "retryable": True, **fields}
        return made_up(path, body)

    return answer


def test_a_retryable_refusal_goes_again_with_the_same_key_when_it_is_told_to() -> None:
    slept: list[float] = []
    keys: list[str] = []
    run = run_against(refusing(2, after=3), slept=slept, keys=keys)
    assert run.sample() == "Four hi·"
    assert slept == [3, 3]
    assert run.refused == 2
    made, *sampled = keys
    assert len(set(sampled)) == 1
    assert made not in sampled, "another call has another key"


def test_a_retryable_refusal_without_a_time_goes_again_soon() -> None:
    slept: list[float] = []
    assert run_against(refusing(1), slept=slept).sample() == "Four hi·"
    assert slept == [1]


def test_patience_ends() -> None:
    slept: list[float] = []
    with pytest.raises(CommandError, match="answered Open: wait"):
        run_against(refusing(99, after=25), slept=slept).sample()
    assert slept == [25, 25]


def test_what_may_have_run_does_not_go_again() -> None:
    slept: list[float] = []
    with pytest.raises(CommandError, match="answered Open: wait"):
        run_against(refusing(1, after=1, retryable=False), slept=slept).sample()
    assert slept == []
