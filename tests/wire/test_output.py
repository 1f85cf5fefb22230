import json
import math
from functools import partial

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinker.proto import tinker_public_pb2 as sdk
from tinker.proto.response_conv import deserialize_forward_backward_output

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire import output
from tinkex_proxy.wire.output import (
    Output,
    Packed,
    Record,
    TensorOut,
    decode_output,
    encode_json,
    loss_sum_of,
)
from tinkex_proxy.wire.packing import unpack

PROTOBUF = "application/x-protobuf"
NUMPY = {
    sdk.DTYPE_FLOAT32: "<f4",
    sdk.DTYPE_INT64: "<i8",
    sdk.DTYPE_INT32: "<i4",
    sdk.DTYPE_BFLOAT16: "<u2",
}


def read(record: Record) -> Record:
    return {name: msgspec.structs.replace(t, data=t.values()) for name, t in record.items()}


@st.composite
def answers(draw: st.DrawFn) -> sdk.ForwardBackwardOutput:
    """Several blocks, ragged rows, every dtype, arbitrary bytes as numbers."""
    answer = sdk.ForwardBackwardOutput(loss_fn_output_type=draw(st.sampled_from(["", "p:T", "T"])))
    answer.metrics["loss:sum"] = draw(st.floats(allow_nan=False))
    names = draw(st.lists(st.sampled_from("abc"), unique=True))
    for count in draw(st.lists(st.integers(1, 3), max_size=3)):
        block = answer.loss_fn_outputs.add(num_datums=count)
        for name in names:
            field = block.fields[name]
            field.dtype = draw(st.sampled_from(sorted(NUMPY)))
            trailing = draw(st.sampled_from([[], [2], [2, 1], [0]]))
            field.trailing_shape.extend(trailing)
            size = np.dtype(NUMPY[field.dtype]).itemsize * (0 if 0 in trailing else 2)
            rows = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
            offsets = [size * sum(rows[:i]) for i in range(count + 1)]
            field.offsets = np.asarray(offsets, dtype="<i8").tobytes()
            field.data = draw(st.binary(min_size=offsets[-1], max_size=offsets[-1]))
    return answer


@given(answers())
def test_protobuf_answers_are_read_as_the_sdk_reads_them(answer: sdk.ForwardBackwardOutput) -> None:
    """Numbers to the last bit, bfloat16 and int32 included."""
    body = answer.SerializeToString()
    ours, theirs = decode_output(body, PROTOBUF), deserialize_forward_backward_output(body)
    if answer.loss_fn_outputs:
        assert ours.loss_fn_output_type == (theirs.loss_fn_output_type or "ArrayRecord")
    assert ours.metrics == theirs.metrics
    assert len(ours.records) == len(theirs.loss_fn_outputs)
    for mine, its in zip(ours.records, theirs.loss_fn_outputs, strict=True):
        assert mine.keys() == its.keys()
        for name, tensor in its.items():
            assert (mine[name].dtype, mine[name].shape) == (tensor.dtype, tensor.shape)
            assert np.array_equal(mine[name].values(), tensor.data, equal_nan=True)


@given(st.integers(0, 5), st.booleans(), st.integers(1, 3))
def test_packed_numbers_are_written_as_python_writes_them(
    count: int, some: bool, stretch: int
) -> None:
    """Stretch by stretch, however they divide; what is no finite number is null."""
    values = [-1.5, math.nan, 0.1, math.inf, 2.0][:count] if some else [7.0] * count
    data = np.asarray(values, dtype="<f4").tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "_STRETCH", stretch)
        packed = Packed(data, 4, partial(unpack, "f"))
        written = encode_json({"a": TensorOut(packed, "float32", [count])})
    assert np.array_equal(packed.values(), np.float32(values), equal_nan=True)
    assert written == encode_json({"a": TensorOut(packed.values(), "float32", [count])})


def test_packed_numbers_are_equal_if_they_are_the_same_bytes_read_the_same_way() -> None:
    size, read_ = 4, partial(unpack, "f")
    one, same, other = (Packed(data, size, read_) for data in (b"abcd", b"abcd", b"efgh"))
    assert len({one, same}) == 1
    assert one != other
    assert one != [1.0]


def test_an_answer_to_nothing_has_the_sdks_type() -> None:
    assert decode_output(b"", PROTOBUF) == Output("ArrayRecord", (), {})


def test_json_answers_are_read_with_what_they_leave_out() -> None:
    """A shape is one dimension, a dtype float32; a number that was none is a NaN."""
    body = {
        "loss_fn_outputs": [
            {"logprobs": {"data": [-1, -2.5]}},
            {"x": {"data": [1, 2], "dtype": "int64", "shape": [2, 1]}},
        ],
        "loss_fn_output_type": "scalar",
        "metrics": {"a:mean": 1, "b:mean": None},
        "type": "forward_backward",
    }
    output = decode_output(json.dumps(body).encode(), "application/json; charset=utf-8")
    assert output.loss_fn_output_type == "scalar"
    assert [read(record) for record in output.records] == [
        {"logprobs": TensorOut([-1, -2.5], "float32", [2])},
        {"x": TensorOut([1, 2], "int64", [2, 1])},
    ]
    assert output.metrics["a:mean"] == 1.0
    assert math.isnan(output.metrics["b:mean"])
    odd = decode_output(b'{"loss_fn_outputs":[{"a":{"data":[null]}}]}', "application/json")
    assert math.isnan(odd.records[0]["a"].values()[0])
    assert odd.metrics == {}


NUMBER = st.one_of(st.none(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False))


@given(st.lists(NUMBER.filter(lambda x: x is None or math.isfinite(x)), max_size=5), st.booleans())
def test_the_numbers_of_json_answers_are_counted_and_passed_on_as_they_came(
    numbers, spaced
) -> None:
    """However they are written, none, one or several; reading them gives what they say."""
    text = json.dumps(numbers, indent=1 if spaced else None).encode()
    body = b'{"loss_fn_outputs":[{"a":{"data":%b}}]}' % text
    (record,) = decode_output(body, "application/json").records
    whole = msgspec.json.encode(record)
    assert text in whole
    assert json.loads(whole) == {
        "a": {"data": numbers, "dtype": "float32", "shape": [len(numbers)]}
    }
    assert [None if math.isnan(x) else x for x in record["a"].values()] == numbers


@pytest.mark.parametrize(
    "data",
    ["[true]", "[1,false]", '["1"]', "[[1]]", "[{}]", "{}", "null", "1", "12", '"[,]"', "[[],[]]"],
)
def test_what_is_no_array_of_numbers_is_given_to_nobody(data: str) -> None:
    body = b'{"loss_fn_outputs":[{"a":{"data":%b}}]}' % data.encode()
    with pytest.raises(UpstreamFault, match="no array of numbers"):
        decode_output(body, "application/json")


def test_a_number_that_no_double_holds_is_found_when_it_is_read() -> None:
    body = b'{"loss_fn_outputs":[{"a":{"data":[1e999]}}]}'
    with pytest.raises(UpstreamFault, match="out of range"):
        decode_output(body, "application/json").records[0]["a"].values()


def with_field(**fields: object) -> bytes:
    answer = sdk.ForwardBackwardOutput()
    answer.loss_fn_outputs.add(num_datums=1).fields["a"].CopyFrom(sdk.BatchedTensor(**fields))
    return answer.SerializeToString()


OFFSETS = (0).to_bytes(8, "little") + (4).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"error": "no"}', "application/json"),
        (b'{"loss_fn_outputs": ', "application/json"),
        (b'{"loss_fn_outputs":[{"a":{"data":[1,]}}]}', "application/json"),
        (b'{"loss_fn_outputs": [], "loss_fn_output_type": "\xff"}', "application/json"),
        (b"<html>", "text/html"),
        (b"\x12\x05", PROTOBUF),
        (with_field(dtype=9, data=b"1234", offsets=OFFSETS), PROTOBUF),
        (with_field(dtype=1, data=b"12345", offsets=OFFSETS), PROTOBUF),
        (with_field(dtype=1, data=b"1234", offsets=b""), PROTOBUF),
        (with_field(dtype=1, data=b"", offsets=OFFSETS), PROTOBUF),
    ],
)
def test_what_is_no_answer_is_the_upstreams_fault(body: bytes, content_type: str) -> None:
    with pytest.raises(UpstreamFault):
        decode_output(body, content_type)


@given(answers())
def test_the_loss_alone_is_what_the_whole_answer_says(answer: sdk.ForwardBackwardOutput) -> None:
    assert loss_sum_of(answer.SerializeToString(), PROTOBUF) == answer.metrics["loss:sum"]


@pytest.mark.parametrize(
    ("body", "content_type", "loss"),
    [
        (
            b'{"metrics":{"loss:sum":2.5},"loss_fn_outputs":[{"any":"thing"}]}',
            "application/json",
            2.5,
        ),
        (b'{"metrics":{"loss:sum":null}}', "application/json", None),
        (b'{"metrics":{}}', "application/json", None),
        (b'{"error":"it failed"}', "application/json", None),
        (b"no answer", "application/json", None),
        (b"", PROTOBUF, None),
        (b"\xff", PROTOBUF, None),
    ],
)
def test_an_answer_without_a_loss_has_none(body, content_type, loss) -> None:
    """It is only looked at: what cannot be read is somebody else's to complain about."""
    assert loss_sum_of(body, content_type) == loss
