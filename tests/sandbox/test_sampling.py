"""Drawing: which tokens may be drawn, how likely, when it ends, and what they scored."""

import numpy as np
import pytest

from tinkex_proxy.sandbox.model import Adapter, Base
from tinkex_proxy.sandbox.sampling import (
    SamplingParams,
    draw,
    prompt_logprobs,
    prompt_topk,
    tempered,
)

LOGPROBS = np.log([0.1, 0.4, 0.2, 0.3])


@pytest.fixture(scope="module")
def model() -> Adapter:
    return Adapter(Base(1), rank=2, seed=1)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.0}, [0, 1, 0, 0]),
        ({"temperature": 0.5}, [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"top_p": 0.65}, [0, 4 / 7, 0, 3 / 7]),
        ({"top_p": 0.35}, [0, 1, 0, 0]),
        ({"top_p": 0.0}, [0, 1, 0, 0]),
        ({"top_k": 3, "top_p": 0.7}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_probabilities_after_temperature_top_k_and_top_p(params, expected) -> None:
    probabilities = tempered(LOGPROBS, SamplingParams(**params))
    assert probabilities == pytest.approx(expected)


def test_draws_follow_the_probabilities(model) -> None:
    """A thousand draws of one token: the likeliest of a sharpened model comes about as often."""
    params = SamplingParams(max_tokens=1, temperature=0.2, top_k=2)
    expected = tempered(model.forward(np.array([5])).logprobs[-1], params)
    likeliest = int(expected.argmax())
    random = rng(7)
    hits = sum(draw(model, [5], params, random).tokens == [likeliest] for _ in range(1000))
    assert hits / 1000 == pytest.approx(expected[likeliest], abs=0.05)


def test_the_same_seed_draws_the_same_and_another_does_not(model) -> None:
    params = SamplingParams(max_tokens=8)
    assert draw(model, [5], params, rng(1)) == draw(model, [5], params, rng(1))
    assert draw(model, [5], params, rng(1)) != draw(model, [5], params, rng(2))


def test_a_draw_scores_its_tokens_as_the_model_does(model) -> None:
    """Of the model itself: temperature and truncation do not change what is told."""
    drawn = draw(model, [5, 6], SamplingParams(max_tokens=4, temperature=0.3, top_k=5), rng())
    whole = np.array([5, 6, *drawn.tokens])
    scored = model.forward(whole[:-1]).logprobs[1:][np.arange(4), drawn.tokens]
    assert drawn.logprobs == pytest.approx(scored)


def test_it_ends_at_its_length_or_with_a_stop_sequence(model) -> None:
    free = draw(model, [5], SamplingParams(max_tokens=6), rng(3))
    assert len(free.tokens) == 6
    assert not free.stopped
    for stop in (tuple(free.tokens[2:3]), tuple(free.tokens[1:3])):
        params = SamplingParams(max_tokens=6, stop=((511, 511, 511, 511), stop))
        stopped = draw(model, [5], params, rng(3))
        assert stopped.tokens == free.tokens[:3]
        assert stopped.stopped


def test_nothing_is_drawn_where_nothing_is_asked(model) -> None:
    assert draw(model, [], SamplingParams(max_tokens=0), rng()).tokens == []


def test_an_empty_prompt_can_be_continued(model) -> None:
    assert len(draw(model, [], SamplingParams(max_tokens=2), rng()).tokens) == 2
    assert prompt_logprobs(model, []) == []
    assert prompt_topk(model, [], 2) == []


def test_prompt_logprobs_are_of_each_token_after_those_before(model) -> None:
    ahead = model.forward(np.array([5, 6, 7])).logprobs
    assert prompt_logprobs(model, [5, 6, 7]) == [None, ahead[0][6], ahead[1][7]]


def test_prompt_topk_are_the_likeliest_in_order(model) -> None:
    first, second = prompt_topk(model, [5, 6], 3)
    assert first is None
    row = model.forward(np.array([5, 6])).logprobs[0]
    assert [p for _, p in second] == sorted(row, reverse=True)[:3]
    assert all(row[token] == p for token, p in second)
