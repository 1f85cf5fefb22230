"""A model in training: how datums are grouped and ordered changes no bit of what it becomes."""

import itertools

import numpy as np
import pytest

from tinkex_proxy.sandbox.adam import AdamParams
from tinkex_proxy.sandbox.bodies import BadRequest, Datum, Training
from tinkex_proxy.sandbox.model import Base
from tinkex_proxy.sandbox.trainer import Trained

STEP = AdamParams(learning_rate=0.02)


def datum(number: int, **inputs: list[float]) -> Datum:
    tokens = np.array([(number * 37 + place * (11 + number)) % 400 for place in range(9)])
    named = {name: np.asarray(values) for name, values in inputs.items()}
    return Datum(tokens[:-1], {"target_tokens": tokens[1:].astype(float), **named})


def call(*data: Datum, loss_fn: str = "cross_entropy", forward_only: bool = False) -> Training:
    return Training("m", None, data, loss_fn, {}, forward_only)


@pytest.fixture
def fresh():
    base = Base(0)
    return lambda seed=1: Trained(base, "sandbox/tiny-1", 8, seed)


def test_the_loss_falls_far_below_half_in_forty_steps(fresh) -> None:
    trained = fresh()
    data = [datum(n) for n in range(8)]
    losses = []
    for _ in range(40):
        losses.append(trained.run(call(*data)).metrics["loss:sum"])
        trained.step(STEP)
    assert losses[-1] < 0.25 * losses[0]
    assert losses[20] < losses[10] < losses[0]


def test_grouping_and_order_of_datums_change_no_bit(fresh) -> None:
    """One call of three datums, three calls of one in every order, two and one: equal weights."""
    data = [datum(n) for n in range(3)]
    whole = fresh()
    outputs = whole.run(call(*data))
    steps = [whole.step(STEP)]
    for order in itertools.permutations(range(3)):
        apart = fresh()
        for number in order:
            one = apart.run(call(data[number]))
            assert (one.logprobs[0] == outputs.logprobs[number]).all()
            assert (one.losses[0] == outputs.losses[number]).all()
        steps.append(apart.step(STEP))
        assert apart.digest == whole.digest
    mixed = fresh()
    mixed.run(call(data[2], data[0]))
    mixed.run(call(data[1]))
    assert mixed.step(STEP) == steps[0]
    assert mixed.digest == whole.digest
    assert all(step == steps[0] for step in steps)


def test_a_datum_more_or_less_shows(fresh) -> None:
    """The control of the test above: were gradients dropped or doubled, it would not hold."""
    whole, fewer, doubled = fresh(), fresh(), fresh()
    whole.run(call(datum(0), datum(1)))
    fewer.run(call(datum(0)))
    doubled.run(call(datum(0), datum(1), datum(1)))
    assert len({(t.step(STEP)["grad_norm"], t.digest) for t in (whole, fewer, doubled)}) == 3


def test_forward_keeps_no_gradient_and_scores_the_same(fresh) -> None:
    trained = fresh()
    seen = trained.run(call(datum(0), forward_only=True))
    assert trained.datums == 0
    trained_on = trained.run(call(datum(0)))
    assert (seen.logprobs[0] == trained_on.logprobs[0]).all()
    assert trained.datums == 1


def test_a_step_uses_the_gradients_up(fresh) -> None:
    trained = fresh()
    trained.run(call(datum(0)))
    assert trained.step(STEP)["grad_norm"] > 0
    assert trained.datums == 0
    assert trained.step(STEP)["grad_norm"] == 0


def test_a_call_that_fails_leaves_none_of_its_gradients(fresh) -> None:
    """The first datum is sound; the second's ratio is beyond all numbers."""
    trained = fresh()
    sound = datum(0, logprobs=[-1.0] * 8, advantages=[1.0] * 8)
    broken = datum(1, logprobs=[-1e6] * 8, advantages=[1.0] * 8)
    with pytest.raises(BadRequest, match="not finite"):
        trained.run(call(sound, broken, loss_fn="importance_sampling"))
    assert trained.datums == 0
    assert trained.step(STEP)["grad_norm"] == 0


def test_gradients_that_would_overflow_their_sum_are_refused_together(fresh) -> None:
    trained = fresh()
    scale = 60_000 / max(np.abs(g).max() for g in gradients_of(fresh()))
    heavy = datum(0, weights=[scale] * 8)
    trained.run(call(*[heavy] * 60))
    with pytest.raises(BadRequest, match="too large"):
        trained.run(call(*[heavy] * 60))
    assert trained.datums == 60


def gradients_of(trained: Trained) -> list[np.ndarray]:
    one = datum(0)
    done = trained.adapter.forward(one.tokens)
    return list(trained.adapter.backward(done, one.targets, -np.ones(8)).values())


@pytest.mark.parametrize("optimizer", [True, False])
def test_a_loaded_checkpoint_continues_as_the_saved_model_would(fresh, optimizer: bool) -> None:
    """With the optimizer's state bit for bit; without it, from the same weights another way."""
    original = fresh()
    original.run(call(datum(0)))
    original.step(STEP)
    saved = original.save(optimizer=True)
    other = fresh(seed=9)
    other.run(call(datum(5)))
    other.load(saved, optimizer=optimizer)
    assert other.digest == original.digest
    assert other.datums == 0
    for trained in (original, other):
        trained.run(call(datum(1)))
        trained.step(STEP)
    assert (other.digest == original.digest) is optimizer


def test_a_checkpoint_does_not_change_with_the_model_or_with_who_loads_it(fresh) -> None:
    trained = fresh()
    saved = trained.save(optimizer=True)
    for _ in range(2):
        trained.load(saved, optimizer=True)
        trained.run(call(datum(0)))
        trained.step(STEP)
        assert saved.adam.steps == 0
        assert (saved.weights["B2"] == 0).all()


def test_weights_for_sampling_have_no_optimizer(fresh) -> None:
    assert fresh().save(optimizer=False).adam is None
