"""Training calls over HTTP: flavours, compression, order, identity, saving and loading."""

import json
import sys

import pytest
import zstandard

from tinkex_proxy.wire import tinker_pb2 as pb

PROTOBUF = "application/x-protobuf"


def protobuf(body: dict[str, object]) -> bytes:
    """A JSON body in the other flavour."""
    import numpy as np  # noqa: PLC0415

    call = body["forward_backward_input"]
    message = pb.ForwardBackwardRequest(
        model_id=body["model_id"], seq_id=body["seq_id"], loss_fn=call["loss_fn"]
    )
    for row in call["data"]:
        datum = message.data.add()
        for chunk in row["model_input"]["chunks"]:
            tokens = np.asarray(chunk["tokens"], "<i4").tobytes()
            datum.model_input.add().encoded_text.tokens = tokens
        for name, kind, number in (
            ("target_tokens", "<i8", pb.DTYPE_INT64),
            ("weights", "<f4", pb.DTYPE_FLOAT32),
        ):
            tensor = datum.loss_fn_inputs[name]
            tensor.dense = np.asarray(row["loss_fn_inputs"][name]["data"], kind).tobytes()
            tensor.dtype = number
    return message.SerializeToString()


async def test_both_flavours_train_the_same(sandbox, training) -> None:
    session = await sandbox.session()
    digests = []
    for number in range(2):
        model_id = await sandbox.model(session, number)
        body = training(model_id, 1)
        if number:
            await sandbox.submit("forward_backward", protobuf(body), content_type=PROTOBUF)
        else:
            await sandbox.submit("forward_backward", body)
        await sandbox.call("optim_step", {"model_id": model_id, "seq_id": 2})
        digests.append((await sandbox.inspect(model_id))["weights_digest"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("flavours", "json_status", "protobuf_status", "forward_status"),
    [("both", 200, 200, 200), ("protobuf", 415, 200, 404), ("json", 200, 500, 200)],
)
async def test_a_sandbox_takes_the_flavours_it_was_told_to(
    start, training, flavours, json_status: int, protobuf_status: int, forward_status: int
) -> None:
    sandbox = await start(flavours=flavours)
    session = await sandbox.session()
    body = training(await sandbox.model(session, 0), 1)
    assert (await sandbox.post("forward_backward", body)).status_code == json_status
    body["forward_input"] = body.pop("forward_backward_input")
    body["seq_id"] = None
    assert (await sandbox.post("forward", body)).status_code == forward_status
    body = training(await sandbox.model(session, 1), 1)
    answer = await sandbox.post("forward_backward", protobuf(body), content_type=PROTOBUF)
    assert answer.status_code == protobuf_status


async def test_forward_only_in_either_way_gathers_nothing(sandbox, training) -> None:
    model_id = await sandbox.model()
    body = training(model_id, 1)
    body["forward_input"] = body.pop("forward_backward_input")
    first = await sandbox.call("forward", body)
    message = pb.ForwardBackwardRequest.FromString(protobuf(training(model_id, 2)))
    message.forward_only = True
    second = await sandbox.submit(
        "forward_backward", message.SerializeToString(), content_type=PROTOBUF
    )
    assert (await sandbox.poll(second)).json() == first
    assert (await sandbox.inspect(model_id))["datums_since_step"] == 0


async def test_a_compressed_body_is_read(sandbox, training) -> None:
    body = json.dumps(training(await sandbox.model(), 1)).encode()
    packed = zstandard.ZstdCompressor().compress(body)
    await sandbox.submit("forward_backward", packed, content_encoding="zstd")


@pytest.mark.parametrize(
    ("encoding", "body", "status"), [("gzip", b"{}", 415), ("zstd", b"not zstd", 400)]
)
async def test_a_compression_it_cannot_read_is_refused(
    sandbox, encoding: str, body: bytes, status: int
) -> None:
    answer = await sandbox.post("forward_backward", body, content_encoding=encoding)
    assert answer.status_code == status


async def test_without_the_library_no_compression_is_read(sandbox, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    answer = await sandbox.post("forward_backward", b"", content_encoding="zstd")
    assert answer.status_code == 415


async def test_a_request_sent_again_is_the_same_request(sandbox, training) -> None:
    model_id = await sandbox.model()
    body = training(model_id, 1)
    first = await sandbox.submit("forward_backward", body)
    await sandbox.poll(first)
    assert await sandbox.submit("forward_backward", body) == first
    step = {"model_id": model_id, "seq_id": 2, "adam_params": {"learning_rate": 0.1}}
    assert await sandbox.submit("optim_step", step) == await sandbox.submit("optim_step", step)
    await sandbox.call("optim_step", {"model_id": model_id, "seq_id": 3})
    seen = await sandbox.inspect(model_id)
    assert (seen["steps"], seen["requests"], seen["next_seq"]) == (2, 4, 4)


async def test_a_number_used_again_for_something_else_is_a_conflict(sandbox, training) -> None:
    model_id = await sandbox.model()
    await sandbox.submit("forward_backward", training(model_id, 1))
    other = await sandbox.post("forward_backward", training(model_id, 1, [1, 2]))
    assert other.status_code == 409
    assert "sequence number was reused" in other.json()["detail"]
    assert (
        await sandbox.post("optim_step", {"model_id": model_id, "seq_id": 1})
    ).status_code == 409
    assert (
        await sandbox.post("optim_step", {"model_id": model_id, "seq_id": -1})
    ).status_code == 409


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("optim_step", {}),
        ("save_weights", {"path": "a"}),
        ("save_weights_for_sampler", {"path": "a"}),
        ("unload_model", {}),
        ("get_info", {}),
    ],
)
async def test_an_unknown_model_is_not_found(sandbox, path: str, body: dict[str, object]) -> None:
    answer = await sandbox.post(path, {"model_id": "m", **body})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Model not found"})


async def test_a_step_tells_its_norm_and_uses_the_adam_params(sandbox, training) -> None:
    session = await sandbox.session()
    digests = set()
    for number, rate in enumerate((0.0, 0.1, 0.2)):
        model_id = await sandbox.model(session, number)
        await sandbox.submit("forward_backward", training(model_id, 1))
        step = {"model_id": model_id, "seq_id": 2, "adam_params": {"learning_rate": rate}}
        assert (await sandbox.call("optim_step", step))["metrics"]["grad_norm"] > 0
        digests.add((await sandbox.inspect(model_id))["weights_digest"])
    assert len(digests) == 3


async def test_a_negative_learning_rate_is_refused(sandbox) -> None:
    body = {"model_id": await sandbox.model(), "adam_params": {"learning_rate": -1}}
    assert (await sandbox.post("optim_step", body)).status_code == 422


async def test_an_unloaded_model_is_gone(sandbox, training) -> None:
    model_id = await sandbox.model()
    late = await sandbox.submit("forward_backward", training(model_id, 2))
    assert (await sandbox.call("unload_model", {"model_id": model_id}))["model_id"] == model_id
    assert (await sandbox.poll(late)).status_code == 410
    assert (await sandbox.post("unload_model", {"model_id": model_id})).status_code == 404
