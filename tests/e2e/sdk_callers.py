"""Train one model from one program or from several callers at once; print the losses as JSON.

    TINKER_BASE_URL=... TINKER_API_KEY=... sdk_callers.py CALLERS

With 1, a program does everything with the client that made the model. With more, each caller is a
session with a name of its own (`X-Tinkex-Caller`), which counts its requests from 1, and brings its
share of the datums at the same moment as the others; one more caller takes the step. SDK 0.38 has
no public way to open a client on a model that is there: `_join` does what it does itself at the end
of `create_lora_training_client`.
"""

import json
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tinker
from sdk_flow import LEARNING_RATE, LOSS, RANK, SEED, data
from tinker import types
from tinker.lib.public_interfaces.training_client import TrainingClient, fetch_training_info

WAIT_S = 60.0
STEPS = 6

Json = dict[str, Any]


def _join(model_id: str, name: str) -> TrainingClient:
    """Open a client on a model that another session made."""
    holder = tinker.ServiceClient(default_headers_overrides={"X-Tinkex-Caller": name}).holder
    info = holder.run_coroutine_threadsafe(fetch_training_info(holder, model_id)).result(WAIT_S)
    return TrainingClient(holder, model_seq_id=0, model_id=model_id, info=info)


def _accumulate(clients: Sequence[TrainingClient]) -> list[float]:
    """The loss of each datum, each client bringing its share at the same moment."""
    together = threading.Barrier(len(clients))
    shares = [data()[number :: len(clients)] for number in range(len(clients))]

    def bring(client: TrainingClient, share: list[types.Datum]) -> list[float]:
        together.wait(WAIT_S)
        return _losses(client.forward_backward(share, LOSS).result(WAIT_S))

    with ThreadPoolExecutor(len(clients)) as pool:
        brought = list(pool.map(bring, clients, shares))
    return [brought[number % len(clients)][number // len(clients)] for number in range(len(data()))]


def _losses(output: types.ForwardBackwardOutput) -> list[float]:
    return [-float(sum(each["logprobs"].data)) for each in output.loss_fn_outputs]


def main(callers: int) -> Json:
    """Train, and look at the end."""
    service = tinker.ServiceClient()
    base_model = service.get_server_capabilities().supported_models[0].model_name
    create = service.create_lora_training_client(base_model, rank=RANK, seed=SEED)
    client = create.result(WAIT_S)
    bringing = [client]
    stepping = client
    if callers > 1:
        bringing = [_join(client.model_id, f"caller {number}") for number in range(callers)]
        stepping = _join(client.model_id, "stepper")
    losses: list[list[float]] = []
    norms: list[Json] = []
    for _ in range(STEPS):
        losses.append(_accumulate(bringing))
        adam = types.AdamParams(learning_rate=LEARNING_RATE)
        norms.append(dict(stepping.optim_step(adam).result(WAIT_S).metrics or {}))
    end = _losses(client.forward(data(), LOSS).result(WAIT_S))
    return {"models": [client.model_id], "losses": [*losses, end], "norms": norms}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)  # as sandbox/sdk_session.py does
