import pytest

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.blocks import counts_of, offsets_of, read_message


def longs(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "little", signed=True) for value in values)


def test_what_is_no_answer_is_the_upstreams_fault() -> None:
    with pytest.raises(UpstreamFault, match="cannot be read"):
        read_message(b"\x12\x05")


def test_blocks_say_how_many_datums_they_have() -> None:
    """Also when a filter has taken every field out of them."""
    message = pb.ForwardBackwardOutput(
        loss_fn_outputs=[pb.ArrayRecord(num_datums=2), pb.ArrayRecord(num_datums=0)]
    )
    assert counts_of(message) == [2, 0]


def test_servers_older_than_num_datums_say_it_by_their_offsets() -> None:
    block = pb.ArrayRecord(fields={"a": pb.BatchedTensor(offsets=longs(0, 4, 8))})
    message = pb.ForwardBackwardOutput(loss_fn_outputs=[block, pb.ArrayRecord()])
    assert counts_of(message) == [2, 0]


def test_offsets_are_one_more_than_datums() -> None:
    field = pb.BatchedTensor(data=b"12345678", offsets=longs(0, 4, 8))
    assert offsets_of(field, 2, field.data) == [0, 4, 8]
    with pytest.raises(UpstreamFault, match="24 bytes of offsets for 3 outputs"):
        offsets_of(field, 3, field.data)


@pytest.mark.parametrize("offsets", [(0, 9), (-4, 4), (8, 4)])
def test_offsets_stay_in_the_data_and_rise(offsets: tuple[int, ...]) -> None:
    field = pb.BatchedTensor(data=b"12345678", offsets=longs(*offsets))
    with pytest.raises(UpstreamFault, match="leave its data"):
        offsets_of(field, 1, field.data)
