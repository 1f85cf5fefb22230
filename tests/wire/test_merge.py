"""What leaves is what the callers sent; the SDK's own messages and types are the judges."""

import base64
import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinker import types
from tinker.proto import tinker_public_pb2 as sdk
from tinker.proto.request_conv import forward_backward_request_to_proto
from tinker.types._pydantic_types.datum import Datum as SdkJsonDatum

from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.chunk import estimate_bytes
from tinkex_proxy.wire.datum import Flavour, parse_datums
from tinkex_proxy.wire.merge import (
    Fragment,
    Submit,
    config_bytes,
    encode_fragment,
    fragment_of_protobuf,
    merge,
)
from tinkex_proxy.wire.output import decode_output
from tinkex_proxy.wire.split import split, split_protobuf

Body = dict[str, object]

TOKENS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6)
FLOATS = st.floats(-(2.0**127), 2.0**127)
NAMES = st.sampled_from(["advantages", "logprobs", "with/slash", "ünï"])
CONFIG = st.dictionaries(st.text(max_size=5), st.one_of(FLOATS, st.text(max_size=5)), max_size=3)


@st.composite
def tensors(draw: st.DrawFn) -> Body:
    """Dense of any shape, ragged from datum to datum, or sparse."""
    dtype = draw(st.sampled_from(["int64", "float32"]))
    value = st.integers(-(2**63), 2**63 - 1) if dtype == "int64" else FLOATS
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    if len(shape) == 2 and draw(st.booleans()):
        rows, columns = shape
        row = st.lists(st.integers(0, max(columns - 1, 0)), max_size=columns, unique=True)
        listed = [sorted(draw(row)) for _ in range(rows)]
        crow = [sum(map(len, listed[:i])) for i in range(rows + 1)]
        cols = [column for columns_of_row in listed for column in columns_of_row]
        data = draw(st.lists(value, min_size=len(cols), max_size=len(cols)))
        sparse = {"sparse_crow_indices": crow, "sparse_col_indices": cols}
        return {"data": data, "dtype": dtype, "shape": shape, **sparse}
    count = 1
    for size in shape:
        count *= size
    data = draw(st.lists(value, min_size=count, max_size=count))
    return {"data": data, "dtype": dtype, "shape": shape}


@st.composite
def chunks(draw: st.DrawFn) -> Body:
    kind = draw(st.sampled_from(["encoded_text", "image", "dmel"]))
    if kind == "encoded_text":
        return {"type": kind, "tokens": draw(TOKENS)}
    data = base64.b64encode(draw(st.binary(max_size=8))).decode()
    if kind == "dmel":
        return {"type": kind, "dmel": data}
    expected = draw(st.one_of(st.none(), st.integers(0, 2**31 - 1)))
    return {
        "type": kind,
        "data": data,
        "format": draw(st.sampled_from(["png", "jpeg"])),
        "expected_tokens": expected,
    }


@st.composite
def datums(draw: st.DrawFn) -> Body:
    """A datum in Tinker's own form; the first chunk has a token, since an empty one is refused."""
    text = {"type": "encoded_text", "tokens": [draw(st.integers(0, 9))]}
    inputs = draw(st.dictionaries(NAMES, tensors(), max_size=3))
    return {
        "model_input": {"chunks": [text, *draw(st.lists(chunks(), max_size=3))]},
        "loss_fn_inputs": inputs,
    }


CALLERS = st.lists(st.lists(datums(), min_size=1, max_size=3), min_size=1, max_size=4)


def fragment(bodies: Sequence[Body], flavour: Flavour) -> Fragment:
    texts = [msgspec.Raw(json.dumps(body, indent=1).encode()) for body in bodies]
    return encode_fragment(parse_datums(texts), flavour)


def merged(fragments: Sequence[Fragment], flavour: Flavour, **changes: object) -> Submit:
    fields = {
        "model_id": "model-1",
        "seq_id": 7,
        "loss_fn": "ppo",
        "loss_fn_config": {},
        "forward_only": False,
        **changes,
    }
    return merge(fragments, flavour=flavour, **fields)


def sdk_datum(body: Body) -> types.Datum:
    inputs = {name: types.TensorData(**t) for name, t in body["loss_fn_inputs"].items()}
    return types.Datum(types.ModelInput.model_validate(body["model_input"]), inputs)


def sdk_request(bodies: Sequence[Body], config: object = None, seq_id: int = 7) -> object:
    inner = types.ForwardBackwardInput([sdk_datum(body) for body in bodies], "ppo", config)
    return forward_backward_request_to_proto(types.ForwardBackwardRequest(inner, "model-1", seq_id))


@given(CALLERS, CONFIG, st.booleans(), st.integers(0, 2**31 - 1))
def test_merged_protobuf_is_the_sdks_request_with_all_datums(
    callers: list[list[Body]], config: dict[str, float | str], forward_only: bool, seq_id: int
) -> None:
    submit = merged(
        [fragment(bodies, Flavour.PROTOBUF) for bodies in callers],
        Flavour.PROTOBUF,
        loss_fn_config=config,
        forward_only=forward_only,
        seq_id=seq_id,
    )
    expected = sdk_request([body for bodies in callers for body in bodies], config, seq_id)
    expected.forward_only = forward_only
    assert sdk.ForwardBackwardRequest.FromString(submit.body) == expected
    assert (submit.path, submit.content_type) == (
        "/api/v1/forward_backward",
        "application/x-protobuf",
    )


@given(CALLERS, CONFIG, st.booleans())
def test_merged_json_is_every_callers_own_text(
    callers: list[list[Body]], config: dict[str, float | str], forward_only: bool
) -> None:
    """The upstream's own types read it; spaces and field order show that nothing was rewritten."""
    submit = merged(
        [fragment(bodies, Flavour.JSON) for bodies in callers],
        Flavour.JSON,
        loss_fn_config=config,
        forward_only=forward_only,
    )
    key = "forward_input" if forward_only else "forward_backward_input"
    everything = [body for bodies in callers for body in bodies]
    assert submit.path == f"/api/v1/{'forward' if forward_only else 'forward_backward'}"
    assert submit.content_type == "application/json"
    assert json.loads(submit.body) == {
        "model_id": "model-1",
        "seq_id": 7,
        key: {"data": everything, "loss_fn": "ppo", "loss_fn_config": config or None},
    }
    for body in everything:
        SdkJsonDatum.model_validate(body)
        assert json.dumps(body, indent=1).encode() in submit.body


def test_the_short_form_leaves_as_tinkers_own() -> None:
    """In either flavour; weights that were left out are ones."""
    short = {"tokens": [5, 6], "targets": [6, 7], "weights": None}
    long = {
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": [5, 6]}]},
        "loss_fn_inputs": {
            "target_tokens": {"data": [6, 7], "dtype": "int64", "shape": [2]},
            "weights": {"data": [1.0, 1.0], "dtype": "float32", "shape": [2]},
        },
    }
    protobuf = merged([fragment([short], Flavour.PROTOBUF)], Flavour.PROTOBUF)
    assert sdk.ForwardBackwardRequest.FromString(protobuf.body) == sdk_request([long])
    submit = merged([fragment([short], Flavour.JSON)], Flavour.JSON)
    assert json.loads(submit.body)["forward_backward_input"]["data"] == [long]


@given(CALLERS)
def test_a_fragment_knows_its_size_as_the_upstream_counts(callers: list[list[Body]]) -> None:
    for bodies in callers:
        for flavour in Flavour:
            made = fragment(bodies, flavour)
            texts = [msgspec.Raw(json.dumps(body).encode()) for body in bodies]
            assert made.datums == len(bodies)
            assert made.size_bytes == sum(map(estimate_bytes, parse_datums(texts)))
            assert made.flavour is flavour


def test_the_same_datums_give_the_same_bytes() -> None:
    """A request that is sent again must be recognised, so the order of a map is fixed."""
    tensor = {"data": [1.0], "dtype": "float32"}
    names = [f"n{i}" for i in range(20)]
    bodies = [
        {
            "model_input": {"chunks": [{"tokens": [1]}]},
            "loss_fn_inputs": dict.fromkeys(order, tensor),
        }
        for order in (names, names[::-1])
    ]
    first, second = (fragment([body], Flavour.PROTOBUF).data for body in bodies)
    assert first == second


def test_an_empty_fragment_leaves_no_comma() -> None:
    nothing = Fragment(Flavour.JSON, b"", 0, 0)
    one = fragment([{"tokens": [1], "targets": [2]}], Flavour.JSON)
    submit = merged([nothing, one, nothing], Flavour.JSON)
    assert len(json.loads(submit.body)["forward_backward_input"]["data"]) == 1


@given(CALLERS, CONFIG)
def test_sdk_bodies_are_merged_without_reading_their_datums(
    callers: list[list[Body]], config: dict[str, float | str]
) -> None:
    """Scalars of the parts give way to the merged request's own, `seq_id` last of all."""
    bodies = [
        sdk_request(caller, config, seq_id=index).SerializeToString(deterministic=True)
        for index, caller in enumerate(callers, 1)
    ]
    taken = [fragment_of_protobuf(body) for body in bodies]
    heads = [head for head, _ in taken]
    assert [part.datums for _, part in taken] == [len(caller) for caller in callers]
    assert [head.seq_id for head in heads] == list(range(1, len(callers) + 1))
    assert {(h.model_id, h.loss_fn, h.loss_fn_config, h.unknown) for h in heads} == {
        ("model-1", "ppo", heads[0].loss_fn_config, b"")
    }
    submit = merged(
        [part for _, part in taken],
        Flavour.PROTOBUF,
        loss_fn_config=heads[0].loss_fn_config,
        seq_id=99,
    )
    everything = [body for caller in callers for body in caller]
    assert sdk.ForwardBackwardRequest.FromString(submit.body) == sdk_request(everything, config, 99)
    assert submit.body.endswith(b"\x10\x63")


UNKNOWN = b"\xa2\x06\x03new"  # field 100, three bytes


def test_fields_of_newer_sdks_survive() -> None:
    """In a datum and beside the datums; the second is told, so that only equal ones share."""
    message = sdk_request([{"model_input": {"chunks": [{"tokens": [1]}]}, "loss_fn_inputs": {}}])
    message.data[0].MergeFromString(UNKNOWN)
    message.MergeFromString(UNKNOWN)
    head, part = fragment_of_protobuf(message.SerializeToString())
    assert head.unknown == UNKNOWN
    submit = merged([part, part], Flavour.PROTOBUF)
    read = sdk.ForwardBackwardRequest.FromString(submit.body)
    assert [datum.SerializeToString().endswith(UNKNOWN) for datum in read.data] == [True, True]
    read.ClearField("data")
    assert UNKNOWN in read.SerializeToString()


def bytes_of(datum: object) -> list[int]:
    return list(datum.SerializeToString(deterministic=True))


def answer_for(request: object, cuts: Sequence[int]) -> object:
    """What an upstream might answer: each datum's bytes as its logprobs, in blocks of any size."""
    answer = sdk.ForwardBackwardOutput(loss_fn_output_type="pkg:scalar")
    answer.metrics["loss:sum"] = 1.5
    values = [bytes_of(datum) for datum in request.data]
    while values:
        size = cuts[len(answer.loss_fn_outputs)] if len(answer.loss_fn_outputs) < len(cuts) else 99
        block, values = values[:size], values[size:]
        record = answer.loss_fn_outputs.add(num_datums=len(block))
        field = record.fields["logprobs"]
        field.dtype = sdk.DTYPE_INT32
        offsets = [4 * sum(map(len, block[:i])) for i in range(len(block) + 1)]
        field.offsets = b"".join(o.to_bytes(8, "little") for o in offsets)
        field.data = b"".join(v.to_bytes(4, "little") for row in block for v in row)
    return answer


@given(CALLERS, st.lists(st.integers(1, 3), max_size=5))
def test_split_of_merge_gives_each_caller_exactly_its_own(
    callers: list[list[Body]], cuts: list[int]
) -> None:
    submit = merged([fragment(bodies, Flavour.PROTOBUF) for bodies in callers], Flavour.PROTOBUF)
    request = sdk.ForwardBackwardRequest.FromString(submit.body)
    body = answer_for(request, cuts).SerializeToString()
    counts = [len(bodies) for bodies in callers]
    whole = decode_output(body, submit.content_type)
    parts = split(whole, counts)
    for bodies, part, raw in zip(callers, parts, split_protobuf(body, counts), strict=True):
        own = [bytes_of(datum) for datum in sdk_request(bodies).data]
        assert [record["logprobs"].values() for record in part.records] == own
        assert decode_output(raw, submit.content_type) == part


@pytest.mark.parametrize("flavour", list(Flavour))
def test_a_request_without_datums_can_be_made(flavour: Flavour) -> None:
    """Upstreams are asked which flavour they take with one that cannot run."""
    assert merged([], flavour).body


def test_a_configuration_equals_the_same_one_of_an_sdk_whatever_the_order() -> None:
    """So that a plain call and an SDK's may share a request."""
    ours = config_bytes({"b": 2.0, "a": 1.0, "mode": "x"})
    request = pb.ForwardBackwardRequest(model_id="m", loss_fn="ppo")
    for name, value in (("a", 1.0), ("b", 2.0)):
        request.loss_fn_config[name] = value
        request.loss_fn_config_v2[name].number = value
    request.loss_fn_config_v2["mode"].text = "x"
    head, _ = fragment_of_protobuf(request.SerializeToString())
    assert ours == head.loss_fn_config
    assert config_bytes({}) == b""
    assert config_bytes({"a": 1.0}) != config_bytes({"a": 2.0})
