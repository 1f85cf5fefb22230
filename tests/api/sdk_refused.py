"""A run of the official SDK in acts, each begun by a line on standard input.

Says on standard output when an act is over, and last, as JSON, the numbers of the whole run.
"""

import json
import os
import sys

import tinker
from tinker import types
from tinker.lib.client_connection_pool_type import ClientConnectionPoolType

WAIT_S = 120
ADAM = types.AdamParams(learning_rate=1e-2)


def datum(number: int) -> types.Datum:
    tokens = [(number * 37 + place * (11 + number)) % 400 for place in range(17)]
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * 16},
    )


DATA = [datum(number) for number in range(4)]


def logprobs(output: types.ForwardBackwardOutput) -> list[list[float]]:
    return [list(map(float, one["logprobs"].data)) for one in output.loss_fn_outputs]


def told(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - its one way to tell


def cue() -> None:
    sys.stdin.readline()


def beat(client: tinker.TrainingClient) -> str:
    """One heartbeat, as the SDK sends them in the background every ten seconds."""
    holder = client.holder

    async def send() -> str:
        with holder.aclient(ClientConnectionPoolType.SESSION) as http:
            try:
                await http.service.session_heartbeat(
                    session_id=holder.get_session_id(), max_retries=0, timeout=10
                )
            except tinker.APIStatusError as error:
                return f"answered {error.status_code}"
            return "alive"

    return holder.run_coroutine_threadsafe(send()).result(WAIT_S)


def main(url: str) -> None:
    service = tinker.ServiceClient(base_url=url)
    client = service.create_lora_training_client("sandbox/tiny-1", rank=8, seed=1).result(WAIT_S)
    trained = [client.forward_backward(DATA, "cross_entropy")]
    client.optim_step(ADAM).result(WAIT_S)
    told("trained")
    cue()
    trained += [client.forward_backward([one], "cross_entropy") for one in DATA]
    steps = [client.optim_step(ADAM)]
    cue()
    told(beat(client))
    trained += [client.forward_backward(DATA, "cross_entropy")]
    steps += [client.optim_step(ADAM)]
    trained += [client.forward(DATA, "cross_entropy")]
    told([logprobs(output.result(WAIT_S)) for output in trained])
    for step in steps:
        step.result(WAIT_S)
    sampler = client.save_weights_and_get_sampling_client().result(WAIT_S)
    prompt = types.ModelInput.from_ints(DATA[0].model_input.to_ints()[:4])
    params = types.SamplingParams(max_tokens=4, temperature=0.0)
    drawn = sampler.sample(prompt, 1, params).result(WAIT_S)
    told([list(map(int, sequence.tokens)) for sequence in drawn.sequences])


main(sys.argv[1])
sys.stdout.flush()
os._exit(0)  # as sandbox/sdk_session.py does
