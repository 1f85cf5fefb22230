"""Requests as the official SDKs write them, for tests that need to send them by hand."""

import asyncio
import json
from itertools import pairwise

from tests.api.driving import datum
from tinkex_proxy.wire import tinker_pb2 as pb

PROTOBUF = "application/x-protobuf"


def message(model_id: str, seq_id: int, *numbers: int, **fields: object) -> bytes:
    """A `forward_backward` request of SDK 0.25 and later, of one datum for each number."""
    request = pb.ForwardBackwardRequest(
        model_id=model_id, seq_id=seq_id, loss_fn="cross_entropy", **fields
    )
    for number in numbers:
        short = datum(number)
        one = request.data.add()
        chunk = one.model_input.add()
        chunk.encoded_text.tokens = b"".join(t.to_bytes(4, "little") for t in short["tokens"])
        count = len(short["targets"])
        target, weights = one.loss_fn_inputs["target_tokens"], one.loss_fn_inputs["weights"]
        target.dense = b"".join(t.to_bytes(8, "little") for t in short["targets"])
        target.dtype, weights.dtype = pb.DTYPE_INT64, pb.DTYPE_FLOAT32
        weights.dense = b"\x00\x00\x80\x3f" * count
        target.shape.append(count)
        weights.shape.append(count)
    return request.SerializeToString()


def json_message(model_id: str, seq_id: int, *numbers: int) -> dict[str, object]:
    """A `forward_backward` request of SDK 0.24 and before."""
    data = []
    for number in numbers:
        short = datum(number)
        count = len(short["targets"])
        inputs = {
            "target_tokens": {"data": short["targets"], "dtype": "int64", "shape": [count]},
            "weights": {"data": [1.0] * count, "dtype": "float32", "shape": [count]},
        }
        chunks = [{"type": "encoded_text", "tokens": short["tokens"]}]
        data.append({"model_input": {"chunks": chunks}, "loss_fn_inputs": inputs})
    given = {"data": data, "loss_fn": "cross_entropy", "loss_fn_config": None}
    return {"model_id": model_id, "seq_id": seq_id, "forward_backward_input": given}


async def send(proxy, body: object, path: str = "forward_backward", **headers: str):
    """Submit; protobuf bodies say that they are."""
    if isinstance(body, bytes):
        headers = {"content_type": PROTOBUF, **headers}
    return await proxy.post(f"/api/v1/{path}", body, **headers)


async def step(proxy, model_id: str, seq_id: int, **headers: str):
    """Submit an `optim_step`."""
    params = {"learning_rate": 0.05, "beta1": 0.9, "beta2": 0.95, "eps": 1e-12}
    body = {"model_id": model_id, "seq_id": seq_id, "adam_params": params, "type": "optim_step"}
    return await send(proxy, body, "optim_step", **headers)


async def result(proxy, submitted, *, accept: str = PROTOBUF, metadata: bool = False):
    """Poll until there is an answer."""
    assert submitted.status_code == 200, submitted.text
    asked = {"request_id": submitted.json()["request_id"], "allow_metadata_only": metadata}
    while True:
        answer = await proxy.post("/api/v1/retrieve_future", asked, accept=accept)
        if answer.status_code != 408:
            return answer
        await asyncio.sleep(0)


def output(answer) -> pb.ForwardBackwardOutput:
    """A training result in protobuf."""
    assert answer.headers["content-type"] == PROTOBUF, answer.text
    return pb.ForwardBackwardOutput.FromString(answer.content)


def logprobs(answer) -> list[bytes]:
    """The bytes of each datum's log-probabilities."""
    if answer.headers["content-type"] != PROTOBUF:
        return [one["logprobs"]["data"] for one in json.loads(answer.content)["loss_fn_outputs"]]
    return [
        block.fields["logprobs"].data[start:end]
        for block in output(answer).loss_fn_outputs
        for start, end in _spans(block.fields["logprobs"].offsets)
    ]


def _spans(offsets: bytes) -> list[tuple[int, int]]:
    places = [int.from_bytes(offsets[i : i + 8], "little") for i in range(0, len(offsets), 8)]
    return list(pairwise(places))


def lane_of(proxy, model_id: str) -> dict[str, object]:
    """What `/lanes` shows of a model."""
    for account in proxy.proxy.services.accounts:
        if model_id in account.models:
            return account.models[model_id].snapshot(0.0)
    return {}
