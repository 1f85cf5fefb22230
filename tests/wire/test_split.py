import numpy as np
import pytest
from tinker.proto import tinker_public_pb2 as sdk
from tinker.proto.response_conv import deserialize_forward_backward_output

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire.output import Output, TensorOut
from tinkex_proxy.wire.split import split, split_protobuf

UNKNOWN = b"\xa2\x06\x03new"  # field 100, three bytes
RECORDS = tuple({"a": TensorOut([float(i)], "float32", [1])} for i in range(4))
OUTPUT = Output("scalar", RECORDS, {"loss:sum": 1.0})


def block(*rows: list[int]) -> sdk.ArrayRecord:
    record = sdk.ArrayRecord(num_datums=len(rows), type_tag="tag")
    field = record.fields["a"]
    field.dtype = sdk.DTYPE_INT64
    field.data = np.asarray([x for row in rows for x in row], dtype="<i8").tobytes()
    offsets = [8 * sum(map(len, rows[:i])) for i in range(len(rows) + 1)]
    field.offsets = np.asarray(offsets, dtype="<i8").tobytes()
    return record


def test_each_caller_gets_its_own_in_order() -> None:
    """Metrics are nobody's own; a caller may have none."""
    assert split(OUTPUT, [1, 0, 3]) == [
        Output("scalar", RECORDS[:1], {}),
        Output("scalar", (), {}),
        Output("scalar", RECORDS[1:], {}),
    ]


def test_a_lone_caller_keeps_everything() -> None:
    assert split(OUTPUT, [4]) == [OUTPUT]
    body = sdk.ForwardBackwardOutput(
        loss_fn_outputs=[block([1])], metrics={"loss:sum": 1.0}
    ).SerializeToString()
    assert split_protobuf(body, [1]) == [body]


@pytest.mark.parametrize("counts", [[1, 2], [5], [4, 1], []])
def test_a_wrong_number_of_outputs_is_given_to_nobody(counts: list[int]) -> None:
    with pytest.raises(UpstreamFault, match="cannot be told"):
        split(OUTPUT, counts)
    body = sdk.ForwardBackwardOutput(loss_fn_outputs=[block([1], [2], [3], [4])])
    with pytest.raises(UpstreamFault, match="cannot be told"):
        split_protobuf(body.SerializeToString(), counts)


def test_bytes_are_cut_across_blocks() -> None:
    """A caller may begin in the middle of one block and end in the next."""
    rows = [[1, 2], [], [3], [4, 5, 6], [7]]
    message = sdk.ForwardBackwardOutput(
        loss_fn_output_type="pkg:T",
        loss_fn_outputs=[block(*rows[:2]), block(*rows[2:])],
        metrics={"loss:sum": 1.0},
    )
    parts = split_protobuf(message.SerializeToString(), [1, 3, 0, 1])
    read = [deserialize_forward_backward_output(part) for part in parts]
    got = [[t["a"].data for t in answer.loss_fn_outputs] for answer in read]
    assert got == [rows[:1], rows[1:4], [], rows[4:]]
    assert [answer.metrics for answer in read] == [{}] * 4
    kinds = {sdk.ForwardBackwardOutput.FromString(part).loss_fn_output_type for part in parts}
    assert kinds == {"pkg:T"}


def test_fields_of_newer_servers_survive_at_every_level() -> None:
    message = sdk.ForwardBackwardOutput(loss_fn_outputs=[block([1], [2])])
    message.MergeFromString(UNKNOWN)
    message.loss_fn_outputs[0].MergeFromString(UNKNOWN)
    message.loss_fn_outputs[0].fields["a"].MergeFromString(UNKNOWN)
    for part in split_protobuf(message.SerializeToString(), [1, 1]):
        assert part.count(UNKNOWN) == 3
        assert sdk.ForwardBackwardOutput.FromString(part).loss_fn_outputs[0].type_tag == "tag"


def test_outputs_without_fields_are_counted() -> None:
    """A filter of the server may have taken every field; the datums were answered all the same."""
    message = sdk.ForwardBackwardOutput(loss_fn_outputs=[sdk.ArrayRecord(num_datums=3)])
    parts = split_protobuf(message.SerializeToString(), [1, 2])
    assert [len(deserialize_forward_backward_output(part).loss_fn_outputs) for part in parts] == [
        1,
        2,
    ]
