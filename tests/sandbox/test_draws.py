"""Answers to sampling requests, against the official SDK's reader."""

import msgspec
import pytest
from tinker.proto.response_conv import deserialize_sample_response

from tinkex_proxy.sandbox.draws import NO_LOGPROB, drawn
from tinkex_proxy.sandbox.forms import Asample
from tinkex_proxy.sandbox.futures import Sampled
from tinkex_proxy.sandbox.model import VOCABULARY, Adapter, Base

PROMPT = [5, 6, 7]


@pytest.fixture(scope="module")
def draw():
    adapter = Adapter(Base(1), rank=2, seed=1)

    def run(seed: int = 0, *, params: dict[str, object] | None = None, **fields: object) -> Sampled:
        body = {
            "prompt": {"chunks": [{"tokens": PROMPT}]},
            "sampling_params": {"max_tokens": 4, **(params or {})},
            **fields,
        }
        return drawn(adapter, msgspec.convert(body, Asample), PROMPT, [seed])

    return run


def test_both_encodings_say_the_same(draw) -> None:
    answer = draw(num_samples=3, prompt_logprobs=True, topk_prompt_logprobs=2)
    theirs = deserialize_sample_response(answer.protobuf)
    assert len(theirs.sequences) == 3
    for one, other in zip(answer.json["sequences"], theirs.sequences, strict=True):
        assert one["tokens"] == list(other.tokens)
        assert one["logprobs"] == list(other.logprobs)
        assert one["stop_reason"] == other.stop_reason == "length"
    assert theirs.prompt_logprobs == pytest.approx(answer.json["prompt_logprobs"], nan_ok=True)
    assert answer.json["prompt_logprobs"][0] is None
    for one, other in zip(
        answer.json["topk_prompt_logprobs"], theirs.topk_prompt_logprobs, strict=True
    ):
        assert (one is None) == (other is None)
        for cell, their_cell in zip(one or [], other or [], strict=True):
            assert their_cell == pytest.approx(cell)


def test_the_first_place_of_topk_is_marked_as_unused(draw) -> None:
    theirs = deserialize_sample_response(draw(topk_prompt_logprobs=2).protobuf)
    matrices = theirs.topk_prompt_logprobs_np
    assert matrices.token_ids.shape == (3, 2)
    assert matrices.logprobs[0].tolist() == [NO_LOGPROB] * 2
    assert (matrices.logprobs[1:] < 0).all()


def test_topk_is_at_most_the_vocabulary(draw) -> None:
    answer = draw(topk_prompt_logprobs=10_000)
    rows = answer.json["topk_prompt_logprobs"]
    assert [len(row or ()) for row in rows] == [0, VOCABULARY, VOCABULARY]
    matrices = deserialize_sample_response(answer.protobuf).topk_prompt_logprobs_np
    assert matrices.token_ids.shape == (3, VOCABULARY)


def test_what_was_not_asked_for_is_not_there(draw) -> None:
    answer = draw()
    theirs = deserialize_sample_response(answer.protobuf)
    assert answer.json["prompt_logprobs"] is answer.json["topk_prompt_logprobs"] is None
    assert theirs.prompt_logprobs is theirs.topk_prompt_logprobs is None


def test_a_seed_repeats_whatever_the_request_and_samples_of_one_request_differ(draw) -> None:
    first = draw(0, params={"seed": 3}, num_samples=2).json["sequences"]
    again = draw(1, params={"seed": 3}, num_samples=1).json["sequences"]
    assert first[0] == again[0]
    assert first[0] != first[1]


def test_without_a_seed_the_request_decides(draw) -> None:
    assert draw(1).json == draw(1).json
    assert draw(1).json["sequences"] != draw(2).json["sequences"]


def test_stops_are_tokens_or_texts_and_max_tokens_has_a_default(draw) -> None:
    """Greedy, from a prompt whose continuation holds a byte that is a character."""
    greedy = draw(params={"temperature": 0.0, "max_tokens": None}).json["sequences"][0]
    assert len(greedy["tokens"]) == 64
    token = greedy["tokens"][1]
    end = greedy["tokens"].index(token) + 1
    stopped = draw(params={"temperature": 0.0, "stop": [token]}).json["sequences"][0]
    assert stopped["tokens"] == greedy["tokens"][:end]
    assert stopped["stop_reason"] == "stop"


@pytest.mark.parametrize("stop", ["", [], [""], None])
def test_an_empty_stop_stops_nothing(draw, stop) -> None:
    assert draw(params={"stop": stop}).json["sequences"][0]["stop_reason"] == "length"


@pytest.mark.parametrize("several", [False, True])
def test_a_stop_text_is_its_bytes(draw, several: bool) -> None:
    tokens = next(
        found
        for seed in range(200)
        if (found := draw(params={"seed": seed}).json["sequences"][0]["tokens"])[1] < 128
    )
    seed = next(
        s for s in range(200) if draw(params={"seed": s}).json["sequences"][0]["tokens"] == tokens
    )
    text = chr(tokens[1])
    stop = ["absent", text] if several else text
    stopped = draw(params={"seed": seed, "stop": stop}).json["sequences"][0]
    assert stopped["tokens"] == tokens[: tokens.index(tokens[1]) + 1]
    assert stopped["stop_reason"] == "stop"
