"""The losses: from the log-probabilities of the targets to a loss per token and its slope.

All are sums over tokens, as Tinker's are, so the gradients of several calls add up to the gradient
of one call with all their datums.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["LOSSES", "NEEDS"]

Floats = npt.NDArray[np.float64]
Config = Mapping[str, float]
# log-probabilities and inputs in; loss per token and its derivative by the log-probability out
Loss = Callable[[Floats, Mapping[str, Floats], Config], tuple[Floats, Floats]]


def cross_entropy(
    logprobs: Floats, inputs: Mapping[str, Floats], _config: Config
) -> tuple[Floats, Floats]:
    """-weight · logprob."""
    weights = inputs.get("weights", np.ones_like(logprobs))
    return -weights * logprobs, -weights


def importance_sampling(
    logprobs: Floats, inputs: Mapping[str, Floats], _config: Config
) -> tuple[Floats, Floats]:
    """-ratio · advantage, the ratio against the sampler's own log-probability."""
    ratio = np.exp(logprobs - inputs["logprobs"])
    loss = -ratio * inputs["advantages"]
    return loss, loss


def ppo(logprobs: Floats, inputs: Mapping[str, Floats], config: Config) -> tuple[Floats, Floats]:
    """The clipped surrogate; where the clip binds, the slope is zero."""
    low = config.get("clip_low_threshold", 0.8)
    high = config.get("clip_high_threshold", 1.2)
    ratio, advantages = np.exp(logprobs - inputs["logprobs"]), inputs["advantages"]
    free, clipped = ratio * advantages, np.clip(ratio, low, high) * advantages
    return -np.minimum(free, clipped), np.where(free <= clipped, -free, 0.0)


LOSSES: Final[Mapping[str, Loss]] = {
    "cross_entropy": cross_entropy,
    "importance_sampling": importance_sampling,
    "ppo": ppo,
}
NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "cross_entropy": ("target_tokens",),
    "importance_sampling": ("target_tokens", "logprobs", "advantages"),
    "ppo": ("target_tokens", "logprobs", "advantages"),
}
