"""The calls that are made, each with its body, the same bytes to every contestant."""

import json
from dataclasses import dataclass

# Of a training call's datum and of a sample: small, so that what is measured is the call.
TOKENS = 16
LARGE_BYTES = 5_000_000

_TOKENS = list(range(1, TOKENS + 1))


@dataclass(frozen=True, slots=True)
class Call:
    """A request that is made over and over.

    Attributes:
        path: where to.
        body: what it says.
        content_type: of the body.
    """

    path: str
    body: bytes
    content_type: str = "application/json"


# As SDKs make them; what relays them does not look inside.
SMALL = Call(
    "/api/v1/asample",
    json.dumps(
        {
            "sampling_session_id": "sampling",
            "seq_id": 1,
            "num_samples": 1,
            "prompt": {"chunks": [{"type": "encoded_text", "tokens": _TOKENS}]},
            "sampling_params": {"max_tokens": TOKENS},
        }
    ).encode(),
)
LARGE = Call(
    "/api/v1/forward_backward",
    bytes(range(250)) * (LARGE_BYTES // 250),
    "application/x-protobuf",
)
# Plain ones, for which a proxy of ours does all it does.
SAMPLE = Call(
    "/v1/sample",
    json.dumps(
        {
            "base_model": "sink",
            "prompt": _TOKENS,
            "num_samples": 1,
            "sampling_params": {"max_tokens": TOKENS},
        }
    ).encode(),
)
TRAIN = Call(
    "/v1/forward_backward",
    json.dumps({"model_id": "model", "data": [{"tokens": _TOKENS, "targets": _TOKENS}]}).encode(),
)
MODEL = Call("/v1/models", json.dumps({"base_model": "sink", "rank": 4}).encode())
