"""A language model small enough to train by hand: frozen base, trainable low-rank weights.

A token's features are the embeddings of itself and of the few tokens before it, through one tanh
layer, to logits over the vocabulary::

    x_t = [E[w_t], E[w_{t-1}], …]         (context, zero before the start)
    h_t = tanh(x_t (W1 + A1 B1))
    z_t = h_t (W2 + A2 B2)

E, W1 and W2 are drawn from the base's seed and never change; A is drawn from the model's seed, B
starts at zero, and both are trained (LoRA). The gradients are written out below and are checked
against finite differences in the tests. Everything is float64 and one datum is computed at a time,
so a datum's numbers do not depend on which others came with it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["VOCABULARY", "Adapter", "Base", "Pass", "Weights"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Weights = dict[str, Floats]

VOCABULARY = 512
CONTEXT = 4
WIDTH = 24
HIDDEN = 48


class Base:
    """The frozen weights that every model of one sandbox starts from."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        inputs = CONTEXT * WIDTH
        self.embedding: Floats = draw.standard_normal((VOCABULARY, WIDTH))
        self.first: Floats = draw.standard_normal((inputs, HIDDEN)) / np.sqrt(inputs)
        self.second: Floats = draw.standard_normal((HIDDEN, VOCABULARY)) * 0.1

    def features(self, tokens: Ints) -> Floats:
        """The context of every position, side by side."""
        embedded = self.embedding[tokens]
        parts = []
        for back in range(CONTEXT):
            shifted = np.zeros_like(embedded)
            shifted[back:] = embedded[: len(embedded) - back]
            parts.append(shifted)
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True, slots=True)
class Pass:
    """What a forward pass leaves for the backward pass."""

    features: Floats
    hidden: Floats
    logprobs: Floats


class Adapter:
    """One model: the low-rank weights on top of a base.

    Args:
        base: the frozen part.
        rank: of the trained matrices.
        seed: of their start.
    """

    def __init__(self, base: Base, rank: int, seed: int) -> None:
        draw = np.random.default_rng([seed, rank])
        inputs = CONTEXT * WIDTH
        self.base = base
        self.rank = rank
        self.weights: Weights = {
            "A1": draw.standard_normal((inputs, rank)) / np.sqrt(inputs),
            "B1": np.zeros((rank, HIDDEN)),
            "A2": draw.standard_normal((HIDDEN, rank)) / np.sqrt(HIDDEN),
            "B2": np.zeros((rank, VOCABULARY)),
        }

    def forward(self, tokens: Ints) -> Pass:
        """Log-probabilities of the next token at every position."""
        w, base = self.weights, self.base
        features = base.features(tokens)
        hidden = np.tanh(features @ base.first + (features @ w["A1"]) @ w["B1"])
        logits = hidden @ base.second + (hidden @ w["A2"]) @ w["B2"]
        shifted = logits - logits.max(axis=1, keepdims=True)
        normalizer = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return Pass(features, hidden, shifted - normalizer)

    def backward(self, done: Pass, targets: Ints, slope: Floats) -> Weights:
        """Gradient of a loss that depends on the targets' log-probabilities.

        Args:
            done: the forward pass.
            targets: the token scored at every position.
            slope: derivative of the loss by each target's log-probability.
        """
        w, base = self.weights, self.base
        d_logits = -np.exp(done.logprobs) * slope[:, None]
        d_logits[np.arange(len(targets)), targets] += slope
        d_hidden = d_logits @ base.second.T + (d_logits @ w["B2"].T) @ w["A2"].T
        d_inner = d_hidden * (1.0 - done.hidden**2)
        return {
            "A1": done.features.T @ (d_inner @ w["B1"].T),
            "B1": (done.features @ w["A1"]).T @ d_inner,
            "A2": done.hidden.T @ (d_logits @ w["B2"].T),
            "B2": (done.hidden @ w["A2"]).T @ d_logits,
        }
