"""Bodies of both flavours, against what the official SDK writes and reads."""

import json

import numpy as np
import pytest
from tinker import types
from tinker.proto.request_conv import forward_backward_request_to_proto
from tinker.proto.response_conv import deserialize_forward_backward_output

from tinkex_proxy.sandbox.bodies import BadRequest, Outputs, from_json, from_protobuf, tokens_of
from tinkex_proxy.wire import tinker_pb2 as pb


def sdk_request(loss_fn: str = "cross_entropy", **config: float):
    data = [
        types.Datum(
            model_input=types.ModelInput(
                chunks=[
                    types.EncodedTextChunk(tokens=[1, 2]),
                    types.EncodedTextChunk(tokens=[511]),
                ]
            ),
            loss_fn_inputs={"target_tokens": [2, 511, 0], "weights": [0.0, 0.5, 1.0]},
        ),
        types.Datum(
            model_input=types.ModelInput.from_ints([9]),
            loss_fn_inputs={"target_tokens": [4], "weights": [1.0]},
        ),
    ]
    call = types.ForwardBackwardInput(data=data, loss_fn=loss_fn, loss_fn_config=config or None)
    return types.ForwardBackwardRequest(model_id="m", seq_id=7, forward_backward_input=call)


def json_body(**changes: object) -> dict[str, object]:
    datum = {
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": [1, 2]}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": [2, 3], "dtype": "int64", "shape": [2]},
            "weights": {"data": [1, 0.5], "dtype": "float32", "shape": [2]},
        },
    }
    call = {"data": [datum], "loss_fn": "cross_entropy", **changes}
    return {"model_id": "m", "seq_id": 7, "forward_backward_input": call}


def read(body: object):
    return from_json(json.dumps(body).encode())


def test_the_sdks_protobuf_is_read_as_it_was_meant() -> None:
    message = forward_backward_request_to_proto(sdk_request("cross_entropy", beta=0.5))
    call = from_protobuf(message.SerializeToString())
    assert (call.model_id, call.seq_id, call.loss_fn) == ("m", 7, "cross_entropy")
    assert call.loss_fn_config == {"beta": 0.5}
    assert not call.forward_only
    assert [datum.tokens.tolist() for datum in call.data] == [[1, 2, 511], [9]]
    assert [datum.targets.tolist() for datum in call.data] == [[2, 511, 0], [4]]
    assert call.data[0].inputs["weights"].tolist() == [0.0, 0.5, 1.0]
    message.forward_only = True
    assert from_protobuf(message.SerializeToString()).forward_only


def test_json_is_read_to_the_same_call_as_protobuf() -> None:
    rows = [([[1, 2], [511]], [2, 511, 0], [0.0, 0.5, 1.0]), ([[9]], [4], [1.0])]
    data = [
        {
            "model_input": {"chunks": [{"type": "encoded_text", "tokens": t} for t in chunks]},
            "loss_fn_inputs": {
                "target_tokens": {"data": targets, "dtype": "int64", "shape": [len(targets)]},
                "weights": {"data": weights, "dtype": "float32", "shape": [len(weights)]},
            },
        }
        for chunks, targets, weights in rows
    ]
    ours = read(json_body(data=data))
    theirs = from_protobuf(forward_backward_request_to_proto(sdk_request()).SerializeToString())
    assert (ours.model_id, ours.seq_id, ours.loss_fn) == (theirs.model_id, 7, theirs.loss_fn)
    assert not ours.forward_only
    for one, other in zip(ours.data, theirs.data, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.inputs.keys() == other.inputs.keys()
        for name, values in one.inputs.items():
            assert values.tolist() == other.inputs[name].tolist()


def test_a_forward_body_is_forward_only() -> None:
    body = json_body()
    body["forward_input"] = body.pop("forward_backward_input")
    assert read(body).forward_only


def changed(**inputs: object) -> dict[str, object]:
    body = json_body()
    datum = body["forward_backward_input"]["data"][0]
    for name, value in inputs.items():
        if name == "tokens":
            datum["model_input"]["chunks"][0]["tokens"] = value
        elif value is None:
            del datum["loss_fn_inputs"][name]
        else:
            datum["loss_fn_inputs"][name]["data"] = value
    return body


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model_id": "m"}, 422, "forward_backward_input or forward_input"),
        ({}, 422, "model_id"),
        (json_body(loss_fn="absolute"), 422, "known are cross_entropy, importance_sampling, ppo"),
        (json_body(loss_fn="ppo"), 400, "datum 0 lacks logprobs, which ppo needs"),
        (changed(target_tokens=None), 400, "datum 0 lacks target_tokens"),
        (changed(weights=[1]), 400, "datum 0: 1 weights for 2 tokens"),
        (changed(tokens=[1, 512]), 400, "token 512 is outside of the vocabulary of 512"),
        (changed(tokens=[1, -1]), 400, "token -1 is outside"),
        (changed(tokens=[1, 2**70]), 400, "outside of the vocabulary"),
        (changed(target_tokens=[1, 512]), 400, "token 512 is outside"),
    ],
)
def test_a_body_that_cannot_be_run_is_refused_and_says_why(body, status: int, said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(body)
    assert refused.value.status == status
    assert said in str(refused.value)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(BadRequest, match="truncated"):
        from_json(b"{")


def broken(change) -> bytes:
    message = pb.ForwardBackwardRequest(model_id="m", loss_fn="cross_entropy")
    datum = message.data.add()
    datum.model_input.add().encoded_text.tokens = np.array([1, 2], "<i4").tobytes()
    for name in ("target_tokens", "weights"):
        datum.loss_fn_inputs[name].dense = np.array([1, 1], "<i8").tobytes()
        datum.loss_fn_inputs[name].dtype = pb.DTYPE_INT64
    change(datum)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\xff", "not a ForwardBackwardRequest"),
        (
            broken(lambda d: setattr(d.model_input[0].encoded_text, "tokens", b"123")),
            "not int32 tokens",
        ),
        (broken(lambda d: setattr(d.model_input.add().image, "format", "png")), "text only"),
        (broken(lambda d: setattr(d.loss_fn_inputs["weights"], "dense", b"1")), "do not fit"),
        (
            broken(lambda d: setattr(d.loss_fn_inputs["weights"].sparse_csr, "values", b"")),
            "dense tensors only",
        ),
    ],
    ids=["no message", "odd tokens", "an image", "odd weights", "sparse weights"],
)
def test_protobuf_that_cannot_be_run_is_refused_and_says_why(body: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        from_protobuf(body)


def test_protobuf_without_a_number_has_none_and_a_datum_may_be_empty() -> None:
    def empty(datum: pb.Datum) -> None:
        del datum.model_input[:]
        for tensor in datum.loss_fn_inputs.values():
            tensor.dense = b""

    call = from_protobuf(broken(empty))
    assert call.seq_id is None
    assert call.data[0].tokens.tolist() == []


def test_answers_say_the_same_in_both_flavours() -> None:
    outputs = Outputs(
        [np.array([-0.1, -2.0]), np.zeros(0), np.array([-3.5])],
        [np.array([0.1, 0.0]), np.zeros(0), np.array([7.0])],
        {"loss:sum": 7.1},
    )
    theirs = deserialize_forward_backward_output(outputs.to_protobuf())
    ours = outputs.to_json()
    assert ours["metrics"] == theirs.metrics == {"loss:sum": 7.1}
    assert ours["loss_fn_output_type"] == theirs.loss_fn_output_type
    for one, other in zip(ours["loss_fn_outputs"], theirs.loss_fn_outputs, strict=True):
        assert one.keys() == other.keys() == {"logprobs", "elementwise_loss"}
        for name, tensor in one.items():
            assert tensor["data"] == list(other[name].data)
            assert tensor["shape"] == other[name].shape
            assert tensor["dtype"] == other[name].dtype == "float32"


def test_tokens_are_those_of_the_vocabulary() -> None:
    assert tokens_of([0, 511]).tolist() == [0, 511]
    assert tokens_of([]).tolist() == []
