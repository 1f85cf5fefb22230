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


def run_against(answer: Answer, seen: list[tuple[str, object]] | None = None) -> Run:
    def handle(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        if seen is not None:
            seen.append((request.url.path, body))
        answered = answer(request.url.path, body)
        status = int(answered.pop("status", 200))
        return httpx.Response(status, json=answered)

    return Run(httpx.Client(base_url="http://proxy", transport=httpx.MockTransport(handle)))


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
