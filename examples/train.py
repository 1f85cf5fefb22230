"""Train a small model from Python with the standard library alone.

Usage: python examples/train.py [PROXY_URL] [BASE_MODEL]
"""

import json
import sys
import urllib.request

PROXY = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8465"
BASE_MODEL = sys.argv[2] if len(sys.argv) > 2 else "sandbox/tiny-1"


def call(path: str, body: dict[str, object]) -> dict[str, object]:
    """POST JSON, get the answer."""
    request = urllib.request.Request(f"{PROXY}/v1/{path}", json.dumps(body).encode())  # noqa: S310
    with urllib.request.urlopen(request) as response:  # noqa: S310 - the URL is the user's own
        return json.load(response)


model_id = call("models", {"base_model": BASE_MODEL, "rank": 8})["model_id"]
data = [{"tokens": [72, 101, 108, 108], "targets": [101, 108, 108, 111]}]
for step in range(1, 6):
    loss = call("forward_backward", {"model_id": model_id, "data": data})["loss"]
    call("optim_step", {"model_id": model_id, "adam_params": {"learning_rate": 0.05}})
    print(f"step {step} loss {loss}")
