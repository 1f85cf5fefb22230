import pytest
from hypothesis import given
from hypothesis import strategies as st
from tinker.proto import tinker_public_pb2 as sdk

from tinkex_proxy.errors import InvalidRequest
from tinkex_proxy.wire.scan import FORWARD_ONLY, SEQ_ID, scan, varint


@given(st.integers(-(2**31), 2**31 - 1))
def test_a_number_is_written_and_read_as_protobuf_does(number: int) -> None:
    """Negative ones included: ten bytes on the wire."""
    body = sdk.ForwardBackwardRequest(seq_id=number).SerializeToString()
    assert scan(SEQ_ID + varint(number))[0].seq_id == number
    assert scan(body)[0].seq_id == number
    if number:
        assert SEQ_ID + varint(number) == body


def test_the_head_is_taken_out_and_the_rest_is_kept() -> None:
    message = sdk.ForwardBackwardRequest(
        model_id="m", seq_id=3, loss_fn="ppo", forward_only=True, data=[sdk.Datum()]
    )
    message.loss_fn_config["a"] = 1.0
    message.loss_fn_config_v2["a"].number = 1.0
    head, data, datums = scan(message.SerializeToString())
    assert (head.model_id, head.seq_id, head.loss_fn, head.forward_only) == ("m", 3, "ppo", True)
    assert (data, datums) == (b"\x1a\x00", 1)
    read = sdk.ForwardBackwardRequest.FromString(head.loss_fn_config)
    assert dict(read.loss_fn_config) == {"a": 1.0}
    assert read.loss_fn_config_v2["a"].number == 1.0


def test_configurations_that_are_equal_compare_equal() -> None:
    """A map has no order on the wire."""
    a, b = (sdk.ForwardBackwardRequest(loss_fn_config={n: 1.0}).SerializeToString() for n in "ab")
    assert scan(a + b)[0].loss_fn_config == scan(b + a)[0].loss_fn_config


def test_of_a_scalar_the_last_one_counts() -> None:
    head, _, _ = scan(SEQ_ID + varint(1) + FORWARD_ONLY + varint(1) + SEQ_ID + varint(2))
    assert (head.seq_id, head.forward_only) == (2, True)


@pytest.mark.parametrize(
    "field",
    [b"\xa0\x06\x96\x01", b"\xa1\x06" + b"8" * 8, b"\xa2\x06\x01x", b"\xa5\x06" + b"4" * 4],
    ids=["varint", "64 bit", "bytes", "32 bit"],
)
def test_unknown_fields_of_every_type_are_kept(field: bytes) -> None:
    head, data, datums = scan(field + b"\x1a\x00" + field)
    assert (head.unknown, data, datums) == (field * 2, field + b"\x1a\x00" + field, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\x1a", "ends in the middle"),
        (b"\x1a\x80", "does not end"),
        (b"\x10" + b"\xff" * 11, "does not end"),
        (b"\x1a\x05abc", "longer than the body"),
        (b"\x18\x01", "another type"),
        (b"\x02\x00", "another type"),
        (b"\xa3\x06", "wire type 3"),
        (b"\x0a\x01\xff", "utf-8"),
        (b'{"model_id": "m"}', "type"),
    ],
)
def test_what_is_no_such_message_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        scan(body)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """And what is read has the datums that protobuf itself finds."""
    try:
        _, _, datums = scan(body)
    except InvalidRequest:
        return
    assert 0 <= datums <= len(body) // 2
