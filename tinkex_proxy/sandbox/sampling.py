"""Drawing tokens: temperature, top-k, top-p, stop sequences; and what it scored."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinkex_proxy.sandbox.model import CONTEXT, Adapter

__all__ = ["Drawn", "SamplingParams", "draw", "prompt_logprobs", "prompt_topk", "tempered"]

Floats = npt.NDArray[np.float64]
DEFAULT_MAX_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to draw.

    Attributes:
        max_tokens: most tokens drawn.
        temperature: 0 takes the likeliest token.
        top_k: only the k likeliest tokens; -1 all.
        top_p: only the likeliest tokens that together reach this probability.
        stop: runs of tokens that end the draw; they stay in it.
    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    stop: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Drawn:
    """One continuation; `stopped` tells a stop sequence from running out of length."""

    tokens: list[int]
    logprobs: list[float]
    stopped: bool


def draw(
    model: Adapter, prompt: Sequence[int], params: SamplingParams, rng: np.random.Generator
) -> Drawn:
    """Draw one continuation of `prompt`."""
    tokens = list(prompt)
    drawn: list[int] = []
    logprobs: list[float] = []
    while len(drawn) < params.max_tokens:
        recent = np.asarray(tokens[-CONTEXT:] or [0], dtype=np.int64)
        ahead = model.forward(recent).logprobs[-1]
        choice = int(rng.choice(len(ahead), p=tempered(ahead, params)))
        tokens.append(choice)
        drawn.append(choice)
        logprobs.append(float(ahead[choice]))
        if any(tuple(drawn[-len(stop) :]) == stop for stop in params.stop):
            return Drawn(drawn, logprobs, stopped=True)
    return Drawn(drawn, logprobs, stopped=False)


def tempered(logprobs: Floats, params: SamplingParams) -> Floats:
    """The probabilities that are drawn from."""
    if params.temperature <= 0:
        sure = np.zeros_like(logprobs)
        sure[int(np.argmax(logprobs))] = 1.0
        return sure
    scaled = logprobs / params.temperature
    weights = np.exp(scaled - scaled.max())
    order = np.argsort(-weights, kind="stable")
    keep = np.zeros(len(weights), dtype=bool)
    keep[order[: params.top_k] if params.top_k > 0 else order] = True
    probabilities = np.where(keep, weights, 0.0)
    probabilities /= probabilities.sum()
    if params.top_p < 1.0:
        before = np.cumsum(probabilities[order]) - probabilities[order]
        probabilities[order[1:][before[1:] >= params.top_p]] = 0.0
        probabilities /= probabilities.sum()
    return probabilities


def prompt_logprobs(model: Adapter, prompt: Sequence[int]) -> list[float | None]:
    """The log-probability of each prompt token after those before it; the first has none."""
    tokens = np.asarray(prompt, dtype=np.int64)
    ahead = model.forward(tokens).logprobs
    scored = ahead[np.arange(len(tokens) - 1), tokens[1:]]
    return [None, *(float(p) for p in scored)][: len(prompt)]


def prompt_topk(
    model: Adapter, prompt: Sequence[int], k: int
) -> list[list[tuple[int, float]] | None]:
    """The k likeliest tokens at each place of the prompt; the first has none."""
    ahead = model.forward(np.asarray(prompt, dtype=np.int64)).logprobs[:-1]
    rows = ([(int(t), float(row[t])) for t in np.argsort(-row, kind="stable")[:k]] for row in ahead)
    return [None, *rows][: len(prompt)]
