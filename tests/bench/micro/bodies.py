"""The calls and answers that are measured: alike everywhere, so that figures can be compared.

Tokens are those of a vocabulary of 150,000, five or six digits each; of the weights half are one.
"""

import random
import struct

import msgspec

from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.datum import Datum, parse_datums

VOCABULARY = 150_000
TOKENS = 2048
MB = 1_000_000


def datum(tokens: int, seed: int) -> dict[str, object]:
    """A datum of the SDK's own form."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    text = [dice.randrange(VOCABULARY) for _ in range(tokens)]
    weights = [float(dice.random() < 0.5) for _ in range(tokens)]
    return {
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": text}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": [*text[1:], 1], "dtype": "int64", "shape": [tokens]},
            "weights": {"data": weights, "dtype": "float32", "shape": [tokens]},
        },
    }


def call(datums: int, tokens: int = TOKENS) -> bytes:
    """The body of a `/v1/forward_backward`."""
    data = [datum(tokens, seed) for seed in range(datums)]
    return msgspec.json.encode({"model_id": "m", "data": data})


def sdk_call(datums: int) -> bytes:
    """The same of an SDK that speaks JSON."""
    data = [datum(TOKENS, seed) for seed in range(datums)]
    inner = {"data": data, "loss_fn": "cross_entropy"}
    return msgspec.json.encode({"model_id": "m", "seq_id": 1, "forward_backward_input": inner})


def parsed(datums: int, tokens: int = TOKENS) -> tuple[Datum, ...]:
    """The datums of such a call, checked and packed."""
    return parse_datums([msgspec.Raw(msgspec.json.encode(datum(tokens, n))) for n in range(datums)])


def answer(datums: int, tokens: int = TOKENS) -> bytes:
    """An upstream's answer in protobuf: two float32 for each token."""
    dice = random.Random(1)  # noqa: S311 - no secret
    count = datums * tokens
    message = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord")
    block = message.loss_fn_outputs.add(num_datums=datums)
    for name in ("logprobs", "elementwise_loss"):
        field = block.fields[name]
        field.dtype = pb.DTYPE_FLOAT32
        field.data = struct.pack(f"<{count}f", *[-9 * dice.random() for _ in range(count)])
        starts = [number * tokens * 4 for number in range(datums + 1)]
        field.offsets = struct.pack(f"<{len(starts)}q", *starts)
    message.metrics["loss:sum"] = 1.0
    return message.SerializeToString()
