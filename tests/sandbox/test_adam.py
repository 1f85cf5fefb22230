"""Adam against a reference written from the paper, number by number."""

import math

import numpy as np
import pytest

from tinkex_proxy.sandbox.adam import Adam, AdamParams


def reference(weight: float, gradients: list[float], params: AdamParams) -> float:
    """AdamW of one number (Loshchilov and Hutter, algorithm 2, with decoupled decay)."""
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = params.beta1 * m + (1 - params.beta1) * g
        v = params.beta2 * v + (1 - params.beta2) * g**2
        m_hat, v_hat = m / (1 - params.beta1**t), v / (1 - params.beta2**t)
        weight *= 1 - params.learning_rate * params.weight_decay
        weight -= params.learning_rate * m_hat / (math.sqrt(v_hat) + params.eps)
    return weight


@pytest.mark.parametrize(
    "params",
    [
        AdamParams(learning_rate=0.1),
        AdamParams(learning_rate=0.1, weight_decay=0.3),
        AdamParams(learning_rate=0.02, beta1=0.5, beta2=0.7, eps=0.1),
    ],
)
def test_steps_are_those_of_the_reference(params: AdamParams) -> None:
    random = np.random.default_rng(1)
    gradients = random.standard_normal((5, 2, 3))
    weights = {"w": np.arange(6.0).reshape(2, 3)}
    adam = Adam()
    for gradient in gradients:
        adam.step(weights, {"w": gradient}, params)
    for place in np.ndindex(2, 3):
        start = float(np.arange(6.0).reshape(2, 3)[place])
        expected = reference(start, [float(g[place]) for g in gradients], params)
        assert weights["w"][place] == pytest.approx(expected, rel=1e-12)
    assert adam.steps == 5


def test_the_norm_is_over_all_weights_and_before_clipping() -> None:
    weights = {"a": np.zeros(1), "b": np.zeros(1)}
    gradient = {"a": np.array([3.0]), "b": np.array([4.0])}
    assert Adam().step(weights, gradient, AdamParams(grad_clip_norm=1.0)) == 5.0


@pytest.mark.parametrize(("limit", "factor"), [(0.0, 1.0), (10.0, 1.0), (2.5, 0.5)])
def test_gradients_are_scaled_to_the_clip_norm(limit: float, factor: float) -> None:
    """With a large eps a step is nearly proportional to the gradient, and shows its scale."""
    weights = {"a": np.zeros(2)}
    params = AdamParams(learning_rate=1.0, eps=1e9, grad_clip_norm=limit)
    Adam().step(weights, {"a": np.array([3.0, 4.0])}, params)
    assert weights["a"] * -1e9 == pytest.approx(factor * np.array([3.0, 4.0]), rel=1e-6)


def test_a_step_without_gradient_counts_and_only_decays() -> None:
    weights = {"a": np.ones(2)}
    adam = Adam()
    assert adam.step(weights, {}, AdamParams(learning_rate=0.5, weight_decay=0.5)) == 0.0
    assert weights["a"] == pytest.approx(0.75)
    assert adam.steps == 1
