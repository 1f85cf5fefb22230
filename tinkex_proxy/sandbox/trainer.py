"""One model of the sandbox: gradients gathered, steps taken, weights saved and restored.

Gradients are added up as integers (multiples of 2⁻⁴⁰), so that the sum does not depend on the order
in which datums came or on how they were grouped into requests: N calls of one datum and one call of
N datums take bit for bit the same step, whichever interleaving of callers made them.
"""

import copy
import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinkex_proxy.sandbox.adam import Adam, AdamParams
from tinkex_proxy.sandbox.bodies import Outputs, Training
from tinkex_proxy.sandbox.losses import LOSSES
from tinkex_proxy.sandbox.model import Adapter, Base, Weights

__all__ = ["Checkpoint", "Trained"]

QUANTUM = 2.0**-40


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights as they were saved; `adam` only where training can go on from it."""

    base_model: str
    rank: int
    weights: Weights
    adam: Adam | None


class Trained:
    """A model and its optimizer.

    Args:
        base: the frozen part.
        base_model: its name.
        rank: of the trained part.
        seed: of its start.
    """

    def __init__(self, base: Base, base_model: str, rank: int, seed: int) -> None:
        self.base_model = base_model
        self.adapter = Adapter(base, rank, seed)
        self.adam = Adam()
        self.datums = 0
        self._sums: dict[str, npt.NDArray[np.int64]] = {}

    def run(self, call: Training) -> Outputs:
        """Compute a call; its gradients are kept unless it is forward only."""
        loss = LOSSES[call.loss_fn]
        logprobs, losses = [], []
        for datum in call.data:
            done = self.adapter.forward(datum.tokens)
            at_targets = done.logprobs[np.arange(len(datum.tokens)), datum.targets]
            values, slope = loss(at_targets, datum.inputs, call.loss_fn_config)
            if not call.forward_only:
                self._gather(self.adapter.backward(done, datum.targets, slope))
            logprobs.append(at_targets)
            losses.append(values)
        total = float(sum(float(values.sum()) for values in losses))
        return Outputs(logprobs, losses, {"loss:sum": total})

    def step(self, params: AdamParams) -> dict[str, float]:
        """Apply what was gathered."""
        gradient: Weights = {
            name: total.astype(np.float64) * QUANTUM for name, total in self._sums.items()
        }
        self._sums, self.datums = {}, 0
        norm = self.adam.step(self.adapter.weights, gradient, params)
        return {"grad_norm": norm, "learning_rate": params.learning_rate}

    def save(self, *, optimizer: bool) -> Checkpoint:
        """A copy of the weights as they are."""
        adam = copy.deepcopy(self.adam) if optimizer else None
        weights = copy.deepcopy(self.adapter.weights)
        return Checkpoint(self.base_model, self.adapter.rank, weights, adam)

    def load(self, saved: Checkpoint, *, optimizer: bool) -> None:
        """Take over saved weights, and the optimizer's state if it is wanted and there."""
        self.adapter.weights = copy.deepcopy(saved.weights)
        self.adapter.rank = saved.rank
        self.adam = copy.deepcopy(saved.adam) if optimizer and saved.adam else Adam()
        self._sums, self.datums = {}, 0

    @property
    def digest(self) -> str:
        """Of the weights: equal digests are bit-equal models."""
        sums = hashlib.blake2b(digest_size=16)
        for name in sorted(self.adapter.weights):
            sums.update(self.adapter.weights[name].tobytes())
        return sums.hexdigest()

    def _gather(self, gradient: Weights) -> None:
        self.datums += 1
        for name, values in gradient.items():
            whole = np.rint(values / QUANTUM).astype(np.int64)
            self._sums[name] = self._sums[name] + whole if name in self._sums else whole
