"""One model of the sandbox: gradients gathered, steps taken, weights saved and restored.

Gradients are added up as integers (multiples of 2⁻⁴⁰), so that the sum does not depend on the order
in which datums came or on how they were grouped into requests: N calls of one datum and one call of
N datums take bit for bit the same step, whichever interleaving of callers made them.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinkex_proxy.sandbox.adam import Adam, AdamParams, norm_of
from tinkex_proxy.sandbox.bodies import BadRequest, Outputs, Training
from tinkex_proxy.sandbox.losses import LOSSES
from tinkex_proxy.sandbox.model import Adapter, Base, Weights

__all__ = ["Checkpoint", "Trained"]

Whole = npt.NDArray[np.int64]
QUANTUM = 2.0**-40
LARGEST = 2.0**16  # of one datum; in quanta, adding it to a sum that is not FULL fits int64
FULL = 2**62


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
        self._sums: dict[str, Whole] = {}

    def run(self, call: Training) -> Outputs:
        """Compute a call; its gradients are kept unless it is forward only."""
        loss = LOSSES[call.loss_fn]
        logprobs, losses, gradients = [], [], []
        for datum in call.data:
            done = self.adapter.forward(datum.tokens)
            at_targets = done.logprobs[np.arange(len(datum.tokens)), datum.targets]
            with np.errstate(over="ignore", invalid="ignore"):
                values, slope = loss(at_targets, datum.inputs, call.loss_fn_config)
                if not call.forward_only:
                    gradients.append(_whole(self.adapter.backward(done, datum.targets, slope)))
            logprobs.append(at_targets)
            losses.append(values)
        self._gather(gradients)
        total = float(sum(float(values.sum()) for values in losses))
        return Outputs(logprobs, losses, {"loss:sum": total})

    def step(self, params: AdamParams) -> dict[str, float]:
        """Apply what was gathered."""
        gradient = self._gradient()
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
    def gradient_norm(self) -> float:
        """Of what was gathered since the last step."""
        return norm_of(self._gradient())

    @property
    def digest(self) -> str:
        """Of the weights: equal digests are bit-equal models."""
        sums = hashlib.blake2b(digest_size=16)
        for name in sorted(self.adapter.weights):
            sums.update(self.adapter.weights[name].tobytes())
        return sums.hexdigest()

    def _gradient(self) -> Weights:
        return {name: total.astype(np.float64) * QUANTUM for name, total in self._sums.items()}

    def _gather(self, gradients: Sequence[Mapping[str, Whole]]) -> None:
        """Add a call's gradients, all of them or, where the sum grows too large, none."""
        sums = dict(self._sums)
        for gradient in gradients:
            for name, whole in gradient.items():
                total = sums[name] + whole if name in sums else whole
                if np.abs(total).max() > FULL:
                    raise BadRequest(
                        "the gradients gathered since the last step are too large", 400
                    )
                sums[name] = total
        self._sums = sums
        self.datums += len(gradients)


def _whole(gradient: Weights) -> dict[str, Whole]:
    """A datum's gradient in quanta; what cannot be counted fails the call, before any is kept."""
    for values in gradient.values():
        if not np.all(np.abs(values) < LARGEST):
            raise BadRequest(f"a gradient is not finite, or larger than {LARGEST:.0f}", 400)
    return {name: np.rint(v / QUANTUM).astype(np.int64) for name, v in gradient.items()}
