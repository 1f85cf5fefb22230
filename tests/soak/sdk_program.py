"""A training program on the official SDK: `sdk_program.py URL SEED [ROUNDS]`.

It tells as JSON what it saw. Without ROUNDS it trains until its standard input is closed.
A process, because the SDK keeps threads and connections for as long as its process lives.
"""

import json
import os
import random
import sys
import threading

import tinker
from tinker import types

MODEL = "sandbox/tiny-1"
WAIT_S = 90


def datum(seed: int, number: int) -> types.Datum:
    draw = random.Random(f"{seed}:{number}")  # noqa: S311 - must repeat
    tokens = [draw.randrange(256) for _ in range(9)]
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": [1.0] * 8},
    )


def main(url: str, seed: int, most: int | None) -> None:
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    service = tinker.ServiceClient(base_url=url, api_key="tml-soak")
    client = service.create_lora_training_client(MODEL, rank=4, seed=seed).result(WAIT_S)
    losses: list[float] = []
    rounds = 0
    while rounds != most and (most is not None or not ended.is_set()):
        trained = client.forward_backward([datum(seed, rounds)], "cross_entropy")
        stepped = client.optim_step(types.AdamParams(learning_rate=0.01))
        (output,) = trained.result(WAIT_S).loss_fn_outputs
        losses.append(-sum(map(float, output["logprobs"].data)))
        stepped.result(WAIT_S)
        rounds += 1
    print(json.dumps({"model_id": client.model_id, "rounds": rounds, "losses": losses}))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
sys.stdout.flush()
os._exit(0)  # as sandbox/sdk_session.py does
