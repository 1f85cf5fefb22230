"""What a user of the official SDK does, as a program of its own; tells as JSON what it saw.

A process, because the SDK keeps threads and connections for as long as its process lives.
"""

import json
import os
import sys

import tinker
from tinker import types

MODEL = "sandbox/tiny-1"
WAIT_S = 60


def datum(number: int) -> types.Datum:
    tokens = [(number * 37 + place * (11 + number)) % 400 for place in range(17)]
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * 16},
    )


DATA = [datum(number) for number in range(8)]


def logprobs(output: types.ForwardBackwardOutput) -> list[list[float]]:
    return [list(map(float, one["logprobs"].data)) for one in output.loss_fn_outputs]


def train(client: tinker.TrainingClient) -> list[float]:
    """Loss before each of forty steps, from the log-probabilities of the targets."""
    losses = []
    for _ in range(40):
        trained = client.forward_backward(DATA, "cross_entropy")
        stepped = client.optim_step(types.AdamParams(learning_rate=1e-2))
        losses.append(-sum(map(sum, logprobs(trained.result(WAIT_S)))))
        stepped.result(WAIT_S)
    return losses


def resume(service: tinker.ServiceClient, path: str, *, optimizer: bool) -> list[list[float]]:
    """What a model made from a checkpoint scores."""
    create = (
        service.create_training_client_from_state_with_optimizer
        if optimizer
        else service.create_training_client_from_state
    )
    client = create(path).result(WAIT_S)
    return logprobs(client.forward(DATA, "cross_entropy").result(WAIT_S))


def sample(sampler: tinker.SamplingClient) -> dict[str, object]:
    prompt = types.ModelInput.from_ints(DATA[0].model_input.to_ints()[:4])
    params = types.SamplingParams(max_tokens=4, temperature=0.0)
    drawn = sampler.sample(prompt, 2, params, include_prompt_logprobs=True).result(WAIT_S)
    return {
        "tokens": [list(map(int, sequence.tokens)) for sequence in drawn.sequences],
        "names": [sequence.sequence_id for sequence in drawn.sequences],
        "scored": len(drawn.prompt_logprobs),
    }


def questions(url: str, model_id: str, path: str) -> dict[str, object]:
    rest = tinker.RestClient(base_url=url)
    runs = rest.list_training_runs().result(WAIT_S).training_runs
    checkpoints = rest.list_checkpoints(model_id).result(WAIT_S).checkpoints
    offered = rest.get_server_capabilities().result(WAIT_S).supported_models
    return {
        "runs": [run.training_run_id for run in runs],
        "checkpoints": [one.tinker_path for one in checkpoints],
        "user_checkpoints": len(rest.list_user_checkpoints().result(WAIT_S).checkpoints),
        "rank": rest.get_weights_info_by_tinker_path(path).result(WAIT_S).lora_rank,
        "models": [model.model_name for model in offered],
        "sessions": len(rest.list_sessions().result(WAIT_S).sessions),
    }


def refusals(service: tinker.ServiceClient, client: tinker.TrainingClient) -> list[str]:
    """What the user reads when a call is refused, and when it fails later."""
    said = []
    for call in (
        lambda: service.create_lora_training_client("meta/llama"),
        lambda: client.save_state("ck"),
    ):
        try:
            call().result(WAIT_S)
        except tinker.TinkerError as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def main(url: str) -> None:
    service = tinker.ServiceClient(base_url=url)
    client = service.create_lora_training_client(MODEL, rank=8, seed=1).result(WAIT_S)
    losses = train(client)
    after = logprobs(client.forward(DATA, "cross_entropy").result(WAIT_S))
    saved = client.save_state("ck").result(WAIT_S).path
    named = client.save_weights_for_sampler("final").result(WAIT_S).path
    transient = client.save_weights_and_get_sampling_client().result(WAIT_S)
    seen = {
        "model_id": client.model_id,
        "losses": losses,
        "after": after,
        "resumed": [resume(service, saved, optimizer=optimizer) for optimizer in (False, True)],
        "paths": [saved, named],
        "samples": [
            sample(transient),
            sample(service.create_sampling_client(model_path=named).result(WAIT_S)),
        ],
        "questions": questions(url, client.model_id, saved),
        "refusals": refusals(service, client),
    }
    service.close("success").result(WAIT_S)
    seen["sessions_after"] = len(
        tinker.RestClient(base_url=url).list_sessions().result(WAIT_S).sessions
    )
    print(json.dumps(seen))  # noqa: T201 - its one way to tell


main(sys.argv[1])
sys.stdout.flush()
# Not by the interpreter's own end: threads of the SDK run on there, and now and then one aborts it.
os._exit(0)
