"""The language model: a distribution, causal, and differentiated exactly."""

import numpy as np
import pytest

from tinkex_proxy.sandbox.losses import LOSSES
from tinkex_proxy.sandbox.model import VOCABULARY, Adapter, Base

TOKENS = np.array([7, 3, 500, 3, 9, 0, 7])
TARGETS = np.array([3, 500, 3, 9, 0, 7, 11])


@pytest.fixture
def model() -> Adapter:
    """A model some way from its start: there B is zero, and half of the gradients with it."""
    adapter = Adapter(Base(5), rank=3, seed=2)
    random = np.random.default_rng(0)
    for name in ("B1", "B2"):
        adapter.weights[name] = 0.3 * random.standard_normal(adapter.weights[name].shape)
    return adapter


def at_targets(model: Adapter) -> np.ndarray:
    return model.forward(TOKENS).logprobs[np.arange(len(TARGETS)), TARGETS]


def test_each_position_gives_a_distribution(model) -> None:
    probabilities = np.exp(model.forward(TOKENS).logprobs)
    assert probabilities.shape == (len(TOKENS), VOCABULARY)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize("place", range(len(TOKENS)))
def test_a_token_bears_on_what_follows_and_on_nothing_before(model, place: int) -> None:
    other = TOKENS.copy()
    other[place] = 77
    same = model.forward(other).logprobs == model.forward(TOKENS).logprobs
    assert same[:place].all()
    assert not same[place].all()


@pytest.mark.parametrize("loss_fn", LOSSES)
@pytest.mark.parametrize("name", ["A1", "B1", "A2", "B2"])
def test_gradients_are_those_of_finite_differences(model, name: str, loss_fn: str) -> None:
    """Central differences of the summed loss, in each entry that is tried, for every loss."""
    random = np.random.default_rng(3)
    start = at_targets(model)
    inputs = {
        "weights": random.uniform(0, 2, len(TARGETS)),
        "logprobs": start + random.uniform(-0.1, 0.1, len(TARGETS)),
        "advantages": random.standard_normal(len(TARGETS)),
    }

    def loss() -> float:
        return float(LOSSES[loss_fn](at_targets(model), inputs, {})[0].sum())

    done = model.forward(TOKENS)
    _, slope = LOSSES[loss_fn](start, inputs, {})
    gradient = model.backward(done, TARGETS, slope)[name]
    weight = model.weights[name]
    assert gradient.shape == weight.shape
    tried = [tuple(random.integers(0, weight.shape)) for _ in range(12)]
    tried.append(np.unravel_index(np.abs(gradient).argmax(), gradient.shape))
    for entry in tried:
        kept, by = weight[entry], 1e-5
        weight[entry] = kept + by
        above = loss()
        weight[entry] = kept - by
        below = loss()
        weight[entry] = kept
        assert gradient[entry] == pytest.approx((above - below) / (2 * by), rel=1e-5, abs=1e-7)


def test_a_new_model_is_its_base_and_its_seeds_decide_the_rest() -> None:
    base = Base(5)
    one, same, other = (Adapter(base, 3, seed) for seed in (1, 1, 2))
    assert (one.forward(TOKENS).logprobs == other.forward(TOKENS).logprobs).all()
    assert (one.weights["A1"] == same.weights["A1"]).all()
    assert (one.weights["A1"] != other.weights["A1"]).any()
    assert (Adapter(Base(6), 3, 1).forward(TOKENS).logprobs != one.forward(TOKENS).logprobs).any()
