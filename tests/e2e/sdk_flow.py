"""What a user of the official SDK does, told as calls: `sdk_program.py` makes them, sync or async.

A flow is a generator: it yields calls that are started together, in order, and is given their
results. So one text serves the blocking and the awaiting half of every SDK from 0.24.1 on. What a
flow returns is all that it saw.
"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import tinker
from tinker import types

RANK = 8
SEED = 1
LEARNING_RATE = 1e-2
SEQUENCES = 8
TOKENS = 16
STARTS = 31  # tokens in use: few enough for any base model; a prime, so that sequences differ
CHUNKED = 1025  # datums; the SDK sends at most 1,024 in one request
LOSS = "cross_entropy"
PROMPT = types.ModelInput.from_ints([4, 7, 10])
SAMPLING = types.SamplingParams(max_tokens=8, temperature=0.7, seed=3)

Seen = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the SDK; one that may be refused gives what the user reads then."""

    on: object
    method: str
    arguments: tuple[object, ...] = ()
    options: dict[str, object] = field(default_factory=dict)
    may_be_refused: bool = False


Flow = Generator[list[Call], list[Any], Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How many steps to train, and which of the parts to do that not every upstream can."""

    steps: int
    parts: tuple[str, ...]


def call(on: object, method: str, *arguments: object, **options: object) -> Call:
    """Write a call much as it reads in a program."""
    return Call(on, method, arguments, options)


def datum(tokens: list[int]) -> types.Datum:
    """Ask for the next token everywhere, each with weight one."""
    weights = [1.0] * (len(tokens) - 1)
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": weights},
    )


def data(count: int = SEQUENCES, tokens: int = TOKENS) -> list[types.Datum]:
    """Give `count` sequences, as unlike as so few tokens allow: whose outputs are whose shows."""
    return [
        datum([(i * 7 + j * (3 + i // STARTS)) % STARTS + 1 for j in range(tokens + 1)])
        for i in range(count)
    ]


def step(client: tinker.TrainingClient) -> Call:
    """Apply what has accumulated."""
    return call(client, "optim_step", types.AdamParams(learning_rate=LEARNING_RATE))


def session(service: tinker.ServiceClient, plan: Plan) -> Flow:
    """Create, train, save, go on from what was saved, sample, list."""
    [offered] = yield [call(service, "get_server_capabilities")]
    base_model = offered.supported_models[0].model_name
    create = call(service, "create_lora_training_client", base_model, rank=RANK, seed=SEED)
    [client] = yield [create]
    seen: Seen = {"offered": offered, "models": [client.model_id]}
    seen["trained"] = yield from _train(client, plan.steps)
    seen["forward"] = yield [call(client, "forward", data(), LOSS)]
    if "chunks" in plan.parts:
        seen["chunks"] = yield from _chunks(client)
    if "custom" in plan.parts:
        seen["custom"] = yield from _custom(client)
    seen["saved"] = yield from _save(service, client, seen["models"])
    seen["sampled"] = yield from _sample(service, client)
    seen["loaded"] = yield from _load(client)
    seen["listed"] = yield from _list(service, client)
    return seen


def _train(client: tinker.TrainingClient, steps: int) -> Flow:
    """Submit the step without waiting for the gradient, as the SDK's users are told to."""
    seen = []
    for _ in range(steps):
        pair = yield [call(client, "forward_backward", data(), LOSS), step(client)]
        seen.append(pair)
    return seen


def _chunks(client: tinker.TrainingClient) -> Flow:
    """More datums than go into one request, with a gradient and without."""
    many = data(CHUNKED, tokens=2)
    with_gradient = call(client, "forward_backward", many, LOSS)
    return (yield [with_gradient, step(client), call(client, "forward", many, LOSS)])


def _custom(client: tinker.TrainingClient) -> Flow:
    """A loss that the upstream does not know, over as many datums as need two requests a phase."""
    import torch  # noqa: PLC0415 - the environment of an upstream that gets no such loss has none

    def surprise(_: list[types.Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, Seen]:
        loss = torch.stack([(each.exp() - 1).square().sum() for each in logprobs]).sum()
        return loss, {"surprise:sum": loss.item()}

    seen = []
    for given in (data(), data(CHUNKED, tokens=2)):
        seen += yield [call(client, "forward_backward_custom", given, surprise)]
        seen += yield [step(client)]
    return seen


def _save(service: tinker.ServiceClient, client: tinker.TrainingClient, models: list[str]) -> Flow:
    """Save, and make models from what was saved: with the optimizer's state, and without."""
    [saved] = yield [call(client, "save_state", "saved")]
    seen: list[Any] = [saved]
    for create in (
        "create_training_client_from_state",
        "create_training_client_from_state_with_optimizer",
    ):
        [restored] = yield [call(service, create, saved.path)]
        models.append(restored.model_id)
        again = call(restored, "forward_backward", data(), LOSS)
        seen.append((yield [again, step(restored), call(restored, "forward", data(), LOSS)]))
    return seen


def _sample(service: tinker.ServiceClient, client: tinker.TrainingClient) -> Flow:
    """From a saved path, and from the weights of this moment."""
    [named] = yield [call(client, "save_weights_for_sampler", "sampler")]
    samplers = yield [
        call(service, "create_sampling_client", model_path=named.path),
        call(client, "save_weights_and_get_sampling_client"),
    ]
    seen: list[Any] = [named]
    for sampler in samplers:
        drawn = call(sampler, "sample", prompt=PROMPT, num_samples=2, sampling_params=SAMPLING)
        seen.append((yield [drawn, call(sampler, "compute_logprobs", PROMPT)]))
    return seen


def _load(client: tinker.TrainingClient) -> Flow:
    """Go back to what was saved, in a model that has gone on; some upstreams refuse that."""
    yield [call(client, "forward_backward", data(), LOSS), step(client)]
    [saved] = yield [call(client, "save_state", "later")]
    load = Call(client, "load_state", (saved.path.replace("later", "saved"),), may_be_refused=True)
    loaded = yield [load]
    return [saved, loaded, (yield [call(client, "forward", data(), LOSS)])]


def _list(service: tinker.ServiceClient, client: tinker.TrainingClient) -> Flow:
    """What the upstream says of our model, and whether it is among all."""
    [rest] = yield [call(service, "create_rest_client")]
    answers = yield [
        call(rest, "get_training_run", client.model_id),
        call(rest, "list_checkpoints", client.model_id),
    ]
    [runs] = yield [call(rest, "list_training_runs", limit=100)]
    ours = [run for run in runs.training_runs if run.training_run_id == client.model_id]
    return [*answers, ours]
