"""Adam with decoupled weight decay and gradient clipping (Kingma and Ba; Loshchilov and Hutter)."""

from dataclasses import dataclass

import numpy as np

from tinkex_proxy.sandbox.model import Weights

__all__ = ["Adam", "AdamParams", "norm_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamParams:
    """One step's parameters; the defaults are the SDK's."""

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0


def norm_of(gradient: Weights) -> float:
    """The length of a gradient over all weights."""
    return float(np.sqrt(sum(float(np.sum(g * g)) for g in gradient.values())))


class Adam:
    """The moments of one model's weights."""

    def __init__(self) -> None:
        self.steps = 0
        self.first: Weights = {}
        self.second: Weights = {}

    def step(self, weights: Weights, gradient: Weights, params: AdamParams) -> float:
        """Move `weights` in place; gives the gradient's norm before clipping."""
        norm = norm_of(gradient)
        scale = 1.0
        if params.grad_clip_norm > 0 and norm > params.grad_clip_norm:
            scale = params.grad_clip_norm / norm
        self.steps += 1
        for name, weight in weights.items():
            g = gradient.get(name, np.zeros_like(weight)) * scale
            m = self.first.get(name, np.zeros_like(weight))
            v = self.second.get(name, np.zeros_like(weight))
            m = params.beta1 * m + (1 - params.beta1) * g
            v = params.beta2 * v + (1 - params.beta2) * g * g
            self.first[name], self.second[name] = m, v
            m_hat = m / (1 - params.beta1**self.steps)
            v_hat = v / (1 - params.beta2**self.steps)
            move = params.weight_decay * weight + m_hat / (np.sqrt(v_hat) + params.eps)
            np.subtract(weight, params.learning_rate * move, out=weight)
        return norm
