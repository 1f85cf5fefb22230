"""A training program on the official SDK: calls are pipelined, one is large, all is awaited late.

    python sdk_program.py BASE_URL STEPS

Prints one line of JSON: the model's id and every loss.
"""

import json
import os
import random
import sys

import tinker
from tinker import types

BASE_MODEL = "sandbox/tiny-1"
# More datums than one request holds: the SDK sends the pieces at once, the first one last.
LARGE = 1100


def datum(draw: random.Random) -> types.Datum:
    tokens = [draw.randrange(256) for _ in range(6)]
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData(data=tokens[1:], dtype="int64", shape=[5]),
            "weights": types.TensorData(data=[1.0] * 5, dtype="float32", shape=[5]),
        },
    )


def main(base_url: str, steps: int) -> None:
    client = tinker.ServiceClient(base_url=base_url)
    training = client.create_lora_training_client(base_model=BASE_MODEL, rank=4, seed=3).result()
    draw = random.Random(5)  # noqa: S311 - the same in every run
    losses: list[float] = []
    for step in range(steps):
        sizes = (2, 1, LARGE if step == 1 else 3)
        pending = [
            training.forward_backward([datum(draw) for _ in range(size)], "cross_entropy")
            for size in sizes
        ]
        stepped = training.optim_step(types.AdamParams(learning_rate=0.01))
        losses += [one.result().metrics["loss:sum"] for one in pending]
        stepped.result()
    told = {"model_id": training.model_id, "losses": losses}
    print(json.dumps(told))  # noqa: T201 - its one way to tell


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # as sandbox/sdk_session.py does
