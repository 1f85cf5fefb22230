"""SDK requests are opened as far as their number; what they are made of goes as it came."""

import json
import struct

import pytest

from tests.api.sdk_calls import json_message, message
from tinkex_proxy.errors import InvalidJson, InvalidRequest
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.datum import Flavour
from tinkex_proxy.wire.merge import merge
from tinkex_proxy.wire.output import decode_output
from tinkex_proxy.wire.sdk import (
    address_of,
    json_answer,
    own_answer,
    own_json_answer,
    read_order,
    read_training,
)

PROTOBUF, JSON = "application/x-protobuf", "application/json"


def body_of(*numbers: int, seq_id: int = 7) -> bytes:
    return json.dumps(json_message("m", seq_id, *numbers)).encode()


def answer(*losses: list[float], **metrics: float) -> bytes:
    """An upstream's answer with one `logprobs` for each datum."""
    out = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord", metrics=metrics)
    block = out.loss_fn_outputs.add(num_datums=len(losses))
    field = block.fields["logprobs"]
    field.dtype = pb.DTYPE_FLOAT32
    values = [value for loss in losses for value in loss]
    field.data = struct.pack(f"<{len(values)}f", *values)
    places = [0]
    for loss in losses:
        places.append(places[-1] + 4 * len(loss))
    field.offsets = struct.pack(f"<{len(places)}q", *places)
    return out.SerializeToString()


def test_a_protobuf_request_is_its_number_its_loss_and_bytes() -> None:
    body = message("m", 7, 1, 2)
    training = read_training(body, PROTOBUF, Flavour.PROTOBUF)
    assert (training.model_id, training.seq_id, training.loss_fn) == ("m", 7, "cross_entropy")
    assert (training.fragment.datums, training.forward_only, training.unknown) == (2, False, False)
    assert training.body is body


def test_a_protobuf_request_without_a_number_has_none() -> None:
    """proto3 writes no zero; SDKs count from 1."""
    assert read_training(message("m", 0, 1), PROTOBUF, Flavour.PROTOBUF).seq_id is None


def test_fields_that_we_do_not_know_are_noticed() -> None:
    body = message("m", 7, 1) + b"\xfa\x01\x03new"
    assert read_training(body, PROTOBUF, Flavour.PROTOBUF).unknown


def test_a_json_request_is_rewritten_for_a_protobuf_upstream() -> None:
    training = read_training(body_of(1, 2), JSON, Flavour.PROTOBUF)
    assert (training.model_id, training.seq_id) == ("m", 7)
    assert training.fragment.flavour is Flavour.PROTOBUF
    theirs = pb.ForwardBackwardRequest.FromString(message("m", 7, 1, 2))
    ours = pb.ForwardBackwardRequest.FromString(training.fragment.data)
    assert list(ours.data) == list(theirs.data)
    assert training.body is None


def test_a_json_request_goes_as_it_is_to_a_json_upstream() -> None:
    """Its datums are spliced, never decoded: what no upstream of ours knows stays."""
    asked = json_message("m", 7, 1)
    asked["forward_backward_input"]["data"][0]["new"] = [1]
    body = json.dumps(asked).encode()
    training = read_training(body, JSON, Flavour.JSON)
    assert training.body is body
    submit = merge(
        [training.fragment],
        model_id="m",
        seq_id=9,
        loss_fn=training.loss_fn,
        loss_fn_config=training.loss_fn_config,
        forward_only=False,
        flavour=Flavour.JSON,
    )
    sent = json.loads(submit.body)
    assert sent["forward_backward_input"]["data"] == asked["forward_backward_input"]["data"]
    assert sent["seq_id"] == 9


def test_a_json_forward_wants_no_gradient() -> None:
    asked = json_message("m", 7, 1)
    asked["forward_input"] = asked.pop("forward_backward_input")
    assert read_training(json.dumps(asked).encode(), JSON, Flavour.JSON).forward_only


@pytest.mark.parametrize(
    ("body", "content_type", "error", "said"),
    [
        (b"\xff\xff", PROTOBUF, InvalidRequest, "not a protobuf"),
        (message("m", 1), PROTOBUF, InvalidRequest, "no data"),
        (b"{", JSON, InvalidJson, "ends too early"),
        (b'{"model_id":"m"}', JSON, InvalidRequest, "neither"),
        (b'{"model_id":1}', JSON, InvalidRequest, "model_id"),
        (body_of(), JSON, InvalidRequest, "empty"),
        (body_of(1, seq_id=0), JSON, InvalidRequest, "counted from 1"),
        (message("m", -3, 1), PROTOBUF, InvalidRequest, "counted from 1"),
    ],
)
def test_what_is_no_training_request_is_refused(body, content_type, error, said) -> None:
    with pytest.raises(error, match=said):
        read_training(body, content_type, Flavour.PROTOBUF)


def test_an_order_is_its_address_and_the_texts_of_its_fields() -> None:
    """Numbers keep their digits: 1e-12 must not become something that equals it."""
    order = read_order(b'{"model_id":"m","seq_id":3,"adam_params":{"eps":1e-12},"new":[1.10]}')
    assert (order.model_id, order.seq_id) == ("m", 3)
    assert {name: bytes(text) for name, text in order.fields.items()} == {
        "adam_params": b'{"eps":1e-12}',
        "new": b"[1.10]",
    }
    assert read_order(b"{}").model_id is None


@pytest.mark.parametrize(
    "body", [b"[]", b'{"model_id":3}', b'{"seq_id":"1"}', b'{"model_id":"m","seq_id":0}']
)
def test_what_is_no_order_is_refused(body) -> None:
    with pytest.raises(InvalidRequest):
        read_order(body)


@pytest.mark.parametrize(
    ("body", "content_type", "address"),
    [
        (message("m", 3), PROTOBUF, ("m", 3)),
        (message("m", 0), PROTOBUF, ("m", None)),
        (b"\xff\xff", PROTOBUF, (None, None)),
        (b'{"model_id":"m","seq_id":4,"forward_input":7}', JSON, ("m", 4)),
        (b'{"model_id":"m"}', JSON, ("m", None)),
        (b"{", JSON, (None, None)),
        (b'{"model_id":7}', JSON, (None, None)),
    ],
)
def test_whose_and_which_a_bad_request_is_can_often_be_told(body, content_type, address) -> None:
    assert address_of(body, content_type) == address


def test_a_protobuf_answer_in_json_is_what_a_json_upstream_would_have_said() -> None:
    told = json.loads(json_answer(answer([-1.0, -2.0], [-4.0], **{"loss:sum": 7.0})))
    assert told == {
        "loss_fn_output_type": "ArrayRecord",
        "loss_fn_outputs": [
            {"logprobs": {"data": [-1.0, -2.0], "dtype": "float32", "shape": [2]}},
            {"logprobs": {"data": [-4.0], "dtype": "float32", "shape": [1]}},
        ],
        "metrics": {"loss:sum": 7.0},
    }


def test_one_callers_part_has_the_loss_of_its_own_datums() -> None:
    training = read_training(message("m", 1, 1), PROTOBUF, Flavour.PROTOBUF)
    part = answer([-0.5] * 8)
    own = decode_output(own_answer(part, training), PROTOBUF)
    assert own.metrics == {"loss:sum": 4.0}
    assert own.records == decode_output(part, PROTOBUF).records


def test_a_loss_that_the_outputs_do_not_tell_is_not_made_up() -> None:
    body = message("m", 1, 1).replace(b"cross_entropy", b"something_odd")
    training = read_training(body, PROTOBUF, Flavour.PROTOBUF)
    part = answer([-0.5] * 8)
    assert own_answer(part, training) == part


def test_one_callers_part_in_json_has_the_loss_that_its_outputs_tell() -> None:
    text = b'{"loss_fn_outputs":[{"elementwise_loss":{"data":[1.0,2.0]}}],"metrics":{"x:sum":9}}'
    output = decode_output(text, JSON)
    assert json.loads(own_json_answer(output))["metrics"] == {"loss:sum": 3.0}
    silent = decode_output(b'{"loss_fn_outputs":[{"logprobs":{"data":[1.0]}}]}', JSON)
    assert json.loads(own_json_answer(silent))["metrics"] == {}
