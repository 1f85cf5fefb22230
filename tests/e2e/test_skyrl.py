"""Through `/v1` to a real upstream: it trains, callers share requests, and the step is the same.

The last is the point of the proxy: N callers of one datum each, coalesced, and one caller with all
N datums must lead to the same weights, or coalescing would change what people train.
"""

import asyncio
import math
from collections.abc import Sequence

import pytest

from tests.e2e.measurement import Report, measure
from tests.e2e.plain import (
    UNCOALESCED,
    Json,
    Plain,
    datums,
    logprobs,
    mean_nll,
    ragged,
)
from tests.e2e.processes import Server
from tests.e2e.servers import Generation

CALLERS = 8
FALL = 0.9
MOST_STEPS = 12  # directly, the tiny model needs 3
GRAD_NORM = "skyrl.ai/grad_norm"
TOLERANCE = 1e-6  # of the value: another batch size is another order of summation
SUBMIT = '"POST /api/v1/forward_backward '
SAMPLING: Json = {"max_tokens": 8, "temperature": 0.7, "seed": 3}
PROMPT = [5, 8, 11]


async def test_a_model_trains_saves_and_samples(plain: Plain) -> None:
    """The loss falls by a tenth, and what was saved is what was trained."""
    data = datums(CALLERS, 16)
    async with plain.model(seed=1) as model_id, plain.model(seed=2) as other:
        losses = await _train(plain, model_id, data)
        assert losses[-1] <= FALL * losses[0], f"the loss did not fall by a tenth: {losses}"
        trained = await plain.forward(model_id, data)

        saved = await plain.post("save_weights", {"model_id": model_id, "path": "trained"})
        await plain.post("load_weights", {"model_id": other, "path": saved["path"]})
        assert await plain.forward(other, data) == trained, "the loaded model is not the saved one"


async def test_sampling_by_model_and_by_path_agree(plain: Plain) -> None:
    """`model_id` samples from the weights of this moment: those that a save gives a path to."""
    data = datums(CALLERS, 16)
    async with plain.model(seed=1) as model_id:
        await plain.forward_backward(model_id, data)
        await plain.step(model_id)
        body: Json = {"model_id": model_id, "path": "sampler"}
        path = (await plain.post("save_weights_for_sampler", body))["path"]

        of_model = await _sample(plain, {"model_id": model_id})
        assert await _sample(plain, {"model_path": path}) == of_model
        assert await _sample(plain, {"base_model": plain.base_model}) != of_model

        await plain.forward_backward(model_id, data)
        await plain.step(model_id)
        assert await _sample(plain, {"model_id": model_id}) != of_model, "sampled from old weights"


async def test_concurrent_callers_share_requests_and_get_their_own_part(
    plain: Plain, upstream: Server, generation: Generation
) -> None:
    """Fewer requests than callers reach the upstream, and each caller's loss is its own datum's."""
    data = ragged(CALLERS)
    async with plain.model() as model_id:
        alone = await plain.forward_backward(model_id, data, UNCOALESCED)
        submits = upstream.count(SUBMIT)
        answers = await _each(plain, model_id, data)
        seen = upstream.count(SUBMIT) - submits

    _assert_batches(answers)
    batches = {answer["batch"]["id"] for answer in answers}
    assert len(batches) < CALLERS, f"nothing was shared: {len(batches)} requests"
    assert seen == len(batches), "the upstream's own log counts other requests than the answers do"
    for answer, expected in zip(answers, logprobs(alone), strict=True):
        _assert_close(logprobs(answer), [expected], generation)
        assert answer["loss"] == pytest.approx(-math.fsum(expected), rel=1e-5)


async def test_coalesced_callers_train_the_same_step(plain: Plain, generation: Generation) -> None:
    """Eight coalesced callers and one call with eight datums lead to the same weights.

    The one call has the datums in the order in which the callers' requests ran: sums of floats
    depend on it in their last bit, and who comes first is the network's choice.
    """
    data = ragged(CALLERS)
    async with plain.model() as model_id:
        answers = await _each(plain, model_id, data)
        found = await _step_and_look(plain, model_id, data)
    assert len({answer["batch"]["id"] for answer in answers}) < CALLERS

    expected = await _after_one_call(plain, data, _in_running_order(data, answers))
    _assert_close(found, expected, generation)


async def test_a_lost_caller_would_show(plain: Plain) -> None:
    """The control: with seven of the eight datums, the same comparison does not hold."""
    data = ragged(CALLERS)
    whole = await _after_one_call(plain, data, data)
    less = await _after_one_call(plain, data, data[:-1])
    assert _distance(less[:1], whole[:1]) > 1e-3, "the norm of the gradient does not tell"
    assert _distance(less[1:], whole[1:]) > 1e-3, "the log probabilities do not tell"


async def test_measure(plain: Plain, generation: Generation, report: Report) -> None:
    """Time five ways to bring eight datums; a table of numbers, no verdict."""
    for tokens in generation.lengths:
        async with plain.model() as model_id:
            report.rows.append(await measure(plain, model_id, generation.label, tokens))


async def _train(plain: Plain, model_id: str, data: Sequence[Json]) -> list[float]:
    losses: list[float] = []
    while len(losses) < MOST_STEPS and (not losses or losses[-1] > FALL * losses[0]):
        losses.append(mean_nll(await plain.forward_backward(model_id, data)))
        await plain.step(model_id)
    print(f"\nmean nll: {' -> '.join(f'{loss:.3f}' for loss in losses)}", flush=True)
    return losses


async def _sample(plain: Plain, source: Json) -> list[Json]:
    body: Json = {**source, "prompt": PROMPT, "num_samples": 2, "sampling_params": SAMPLING}
    sequences = (await plain.post("sample", body))["sequences"]
    assert len(sequences) == 2
    for sequence in sequences:
        assert 0 < len(sequence["tokens"]) <= 8
        assert len(sequence["logprobs"]) == len(sequence["tokens"])
        assert sequence["stop_reason"] in {"stop", "length"}
    return sequences


async def _each(plain: Plain, model_id: str, data: Sequence[Json]) -> list[Json]:
    """Let every datum have a caller of its own, all at once."""
    return await asyncio.gather(*[plain.forward_backward(model_id, [datum]) for datum in data])


async def _after_one_call(
    plain: Plain, data: Sequence[Json], call: Sequence[Json]
) -> list[list[float]]:
    """Train a fresh model with one uncoalesced call, and say what came of it."""
    async with plain.model() as model_id:
        await plain.forward_backward(model_id, call, UNCOALESCED)
        return await _step_and_look(plain, model_id, data)


async def _step_and_look(plain: Plain, model_id: str, data: Sequence[Json]) -> list[list[float]]:
    """Apply the gradient; give its norm, then what the model now says of each datum.

    The norm belongs to it: Adam's first step hides a gradient that is eight times too large.
    """
    metrics = await plain.step(model_id)
    return [[metrics[GRAD_NORM]], *await plain.forward(model_id, data)]


def _in_running_order(data: Sequence[Json], answers: Sequence[Json]) -> list[Json]:
    """Sort datums by the place that their callers' answers name: `MODEL#REQUEST`, and the index."""
    batches = [answer["batch"] for answer in answers]
    places = [(int(batch["id"].rpartition("#")[2]), batch["index"]) for batch in batches]
    return [data[i] for i in sorted(range(len(data)), key=places.__getitem__)]


def _assert_batches(answers: Sequence[Json]) -> None:
    """Every batch says as many requests and datums as it had callers, and numbers them."""
    for batch_id in {answer["batch"]["id"] for answer in answers}:
        shared = [answer["batch"] for answer in answers if answer["batch"]["id"] == batch_id]
        assert {batch["requests"] for batch in shared} == {len(shared)}
        assert {batch["datums"] for batch in shared} == {len(shared)}
        assert sorted(batch["index"] for batch in shared) == list(range(len(shared)))


def _assert_close(
    found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]], generation: Generation
) -> None:
    if generation.micro_batch == 1:
        assert found == expected, f"not bit for bit: {_distance(found, expected):.3e}"
    else:
        distance = _distance(found, expected)
        assert distance <= TOLERANCE, f"further apart than {TOLERANCE}: {distance:.3e}"


def _distance(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> float:
    """Return the largest difference, relative to the value it should be."""
    pairs = [
        pair
        for one, other in zip(found, expected, strict=True)
        for pair in zip(one, other, strict=True)
    ]
    return max(abs(one - other) / abs(other) for one, other in pairs)
