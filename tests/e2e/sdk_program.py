"""What a user of the official SDK writes: create, train until the loss is halved, save, sample.

Run by an environment that holds the SDK and nothing of ours, against `TINKER_BASE_URL`. Its last
line of output is one JSON object, which `test_sdk.py` judges.
"""

import json
import math
import sys
from importlib.metadata import version

import tinker
from tinker import types

RANK = 8
SEED = 1
LEARNING_RATE = 3e-2
MOST_STEPS = 60
SEQUENCES = 8
TOKENS = 16
VOCABULARY = 30  # small enough for any base model


def datum(tokens: list[int]) -> types.Datum:
    """Ask for the next token everywhere, each with weight one."""
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)},
    )


def mean_nll(output: types.ForwardBackwardOutput) -> float:
    """Return the mean over sequences of the mean negative log probability."""
    each = [
        -math.fsum(o["logprobs"].data) / len(o["logprobs"].data) for o in output.loss_fn_outputs
    ]
    return math.fsum(each) / len(each)


def train(client: tinker.TrainingClient, data: list[types.Datum]) -> list[float]:
    """Step until the loss is half of the first one."""
    losses: list[float] = []
    adam = types.AdamParams(learning_rate=LEARNING_RATE)
    while len(losses) < MOST_STEPS and (not losses or losses[-1] > losses[0] / 2):
        output = client.forward_backward(data, "cross_entropy")
        client.optim_step(adam).result()
        losses.append(mean_nll(output.result()))
    return losses


def main() -> None:
    """Do all of it and print what came."""
    service = tinker.ServiceClient()
    base_model = service.get_server_capabilities().supported_models[0].model_name
    client = service.create_lora_training_client(base_model=base_model, rank=RANK, seed=SEED)
    data = [
        datum([(i * 7 + j * 3) % VOCABULARY + 1 for j in range(TOKENS + 1)])
        for i in range(SEQUENCES)
    ]
    losses = train(client, data)
    state = client.save_state("trained").result()
    sampler = client.save_weights_and_get_sampling_client()
    prompt = types.ModelInput.from_ints([4, 7, 10])
    params = types.SamplingParams(max_tokens=8, temperature=0.7, seed=3)
    sample = sampler.sample(prompt=prompt, num_samples=2, sampling_params=params).result()
    told = {
        "sdk": version("tinker"),
        "losses": losses,
        "forward": mean_nll(client.forward(data, "cross_entropy").result()),
        "state": state.path,
        "tokens": [sequence.tokens for sequence in sample.sequences],
        "logprobs": [sequence.logprobs for sequence in sample.sequences],
    }
    print(json.dumps(told))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
