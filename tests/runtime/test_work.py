import asyncio

import msgspec
import pytest

from tinkex_proxy.core.coalesce import FlushReason, Item
from tinkex_proxy.core.lane import Batch
from tinkex_proxy.errors import ApiKeyRefused, UpstreamFault
from tinkex_proxy.runtime.work import Call, Order, Training, accept_of, encode, read
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.datum import Flavour, parse_datums
from tinkex_proxy.wire.merge import encode_fragment

SHORT = msgspec.Raw(b'{"tokens": [1, 2], "targets": [2, 3]}')


def training(flavour: Flavour = Flavour.JSON, **more: object) -> Training:
    fragment = encode_fragment(parse_datums([SHORT]), flavour)
    fields = {"loss_fn": "cross_entropy", "loss_fn_config": {}, **more}
    return Training(fragment=fragment, **fields)


async def call_of(work: Training | Order, number: int = 1) -> Call:
    datums = work.fragment.datums if isinstance(work, Training) else 0
    answer = asyncio.get_running_loop().create_future()
    return Call(work, Item(id=number, key=None, datums=datums), 0.0, answer)


def batch(*calls: Call) -> Batch:
    return Batch(5, tuple(call.item for call in calls), FlushReason.IDLE, 0.0)


def test_only_like_may_share() -> None:
    """Same loss, configuration and flavour; a forward, or coalescing off, shares with nobody."""
    key = training().key
    assert key is not None
    assert key == training().key
    assert key != training(loss_fn="ppo").key
    assert key != training(loss_fn_config={"a": 1.0}).key
    assert key != training(Flavour.PROTOBUF).key
    assert training(forward_only=True).key is None
    assert training(coalesce=False).key is None


async def test_an_order_carries_its_fields_and_our_number() -> None:
    call = await call_of(Order("/api/v1/optim_step", {"type": "optim_step"}))
    ask = encode("m", batch(call), [call], repeatable=True, identity="i")
    body = msgspec.json.decode(ask.body)
    assert body == {"type": "optim_step", "model_id": "m", "seq_id": 5}
    assert (ask.path, ask.identity, ask.repeatable) == ("/api/v1/optim_step", "i", True)


@pytest.mark.parametrize("flavour", Flavour)
async def test_training_goes_in_the_flavour_it_was_written_in(flavour: Flavour) -> None:
    """Even when another was learnt in between; whether it may be repeated is the upstream's."""
    calls = [await call_of(training(flavour), n) for n in (1, 2)]
    ask = encode("m", batch(*calls), calls, repeatable=False, identity="i")
    assert ask.repeatable is False
    if flavour is Flavour.JSON:
        body = msgspec.json.decode(ask.body)
        assert (body["seq_id"], len(body["forward_backward_input"]["data"])) == (5, 2)
        assert accept_of(calls[0]) == ask.content_type == "application/json"
    else:
        message = pb.ForwardBackwardRequest.FromString(ask.body)
        assert (message.seq_id, message.model_id, len(message.data)) == (5, "m", 2)
        assert accept_of(calls[0]) == ask.content_type == "application/x-protobuf"


async def test_an_answer_is_split_or_explained(reply) -> None:
    works = [training(), training()]
    outputs = [{"logprobs": {"data": [n, n]}} for n in (1, 2)]
    good = reply(200, {"loss_fn_outputs": outputs, "metrics": {"a:sum": 3.0}})
    shares = read(good, works, [1, 1], batch_id="m#5")
    assert [share.output.records[0]["logprobs"].values() for share in shares] == [[1, 1], [2, 2]]
    assert [share.output.metrics for share in shares] == [{}, {}]
    with pytest.raises(UpstreamFault):
        read(
            reply(200, {"loss_fn_outputs": outputs[:1], "metrics": {}}), works, [1, 1], batch_id="b"
        )
    with pytest.raises(UpstreamFault):
        read(reply(200, b"<html>"), works, [1, 1], batch_id="b")
    order = [Order("/x", {})]
    assert read(reply(200, {"path": "p"}), order, [0], batch_id="b") == [{"path": "p"}]
    with pytest.raises(ApiKeyRefused):
        read(reply(401), order, [0], batch_id="b")
    only_the_second = read(good, [None, works[1]], [1, 1], batch_id="m#5")
    assert only_the_second[1] == shares[1]
