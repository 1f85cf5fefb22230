"""The same calls as `curl` lines that work when they are pasted."""

import json
from collections.abc import Mapping
from typing import Final

from tinkex_proxy.cli.demo.training import LEARNING_RATE, datum_of

__all__ = ["recipes"]

# Short enough for one line of a terminal to stay readable, long enough to have a loss.
SHORT_TEXT: Final = "Four call"


def recipes(url: str, model_id: str) -> list[tuple[str, str]]:
    """What to try, and the line for it.

    Args:
        url: the proxy's.
        model_id: of the model that was trained.
    """
    train: dict[str, object] = {"model_id": model_id, "data": [datum_of(SHORT_TEXT)]}
    step: dict[str, object] = {
        "model_id": model_id,
        "adam_params": {"learning_rate": LEARNING_RATE},
    }
    sample: dict[str, object] = {
        "model_id": model_id,
        "prompt": list(b"Four"),
        "sampling_params": {"max_tokens": 16, "temperature": 0},
    }
    return [
        ("a gradient from one text", _post(f"{url}/v1/forward_backward", train)),
        ("the step that applies it", _post(f"{url}/v1/optim_step", step)),
        ("a sample from the new weights", _post(f"{url}/v1/sample", sample)),
        ("what the proxy is doing", f"curl -s {url}/lanes"),
        ("is the upstream well?", f"curl -s {url}/breakers"),
    ]


def _post(url: str, body: Mapping[str, object]) -> str:
    text = json.dumps(body, separators=(",", ":"))
    return f"curl -s {url} -H 'content-type: application/json' -d '{text}'"
