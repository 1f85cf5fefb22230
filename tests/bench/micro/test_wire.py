"""Merging callers' bodies into one request, and splitting its answer."""

from functools import partial

from tests.bench.micro.bodies import MB, answer, call, parsed, sdk_call
from tinkex_proxy.wire.answer_json import encode_answer
from tinkex_proxy.wire.answers import BatchInfo, TrainingAnswer
from tinkex_proxy.wire.datum import Flavour
from tinkex_proxy.wire.merge import encode_fragment, fragment_of_protobuf, merge
from tinkex_proxy.wire.output import decode_output, encode_json
from tinkex_proxy.wire.plain import decode_training
from tinkex_proxy.wire.sdk import read_training
from tinkex_proxy.wire.split import split, split_protobuf

PROTOBUF, JSON = "application/x-protobuf", "application/json"
CALLERS = 8
EACH = 12  # datums of a caller: 0.4 MB of JSON


def _merged(fragments, flavour: Flavour) -> bytes:
    return merge(
        fragments,
        model_id="m",
        seq_id=1,
        loss_fn="cross_entropy",
        loss_fn_config={},
        forward_only=False,
        flavour=flavour,
    ).body


def test_merge_protobuf_to_protobuf(measure) -> None:
    """SDKs' requests are taken apart and put together."""
    body = _merged([encode_fragment(parsed(EACH), Flavour.PROTOBUF)], Flavour.PROTOBUF)
    bodies = [body] * CALLERS

    def work() -> bytes:
        return _merged([fragment_of_protobuf(one)[1] for one in bodies], Flavour.PROTOBUF)

    measure(work, target=0.2, unit="ms per MB", units=len(body) * CALLERS / MB)


def test_merge_json_to_json(measure) -> None:
    """Requests of SDKs that speak JSON, to an upstream that does."""
    bodies = [sdk_call(EACH)] * CALLERS

    def work() -> bytes:
        fragments = [read_training(one, JSON, Flavour.JSON).fragment for one in bodies]
        return _merged(fragments, Flavour.JSON)

    measure(work, target=2, unit="ms per MB", units=len(bodies[0]) * CALLERS / MB)


def test_merge_plain_json_to_json(measure) -> None:
    """Plain calls to such an upstream: each number is checked, and sent as it came."""
    bodies = [call(EACH)] * CALLERS

    def work() -> bytes:
        calls = [decode_training(one).datums for one in bodies]
        return _merged([encode_fragment(one, Flavour.JSON) for one in calls], Flavour.JSON)

    measure(work, target=None, unit="ms per MB", units=len(bodies[0]) * CALLERS / MB)


def test_merge_json_to_protobuf(measure) -> None:
    """Plain calls to an upstream that speaks protobuf: checked, packed, put together."""
    bodies = [call(EACH)] * CALLERS

    def work() -> bytes:
        calls = [decode_training(one).datums for one in bodies]
        return _merged([encode_fragment(one, Flavour.PROTOBUF) for one in calls], Flavour.PROTOBUF)

    measure(work, target=8, unit="ms per MB", units=len(bodies[0]) * CALLERS / MB)


def test_split_protobuf_to_protobuf(measure) -> None:
    body = answer(CALLERS * EACH)
    work = partial(split_protobuf, body, [EACH] * CALLERS)
    measure(work, target=0.2, unit="ms per MB", units=len(body) / MB)


def _split_to_json(body: bytes, content_type: str) -> list[bytes]:
    parts = split(decode_output(body, content_type), [EACH] * CALLERS)
    batch = BatchInfo("m#1", CALLERS, CALLERS * EACH, 0, {})
    answers = [TrainingAnswer(1.0, part.records, part.metrics, batch) for part in parts]
    return [encode_answer(one) for one in answers]


def test_split_json_to_json(measure) -> None:
    """Of an upstream's JSON each caller's own."""
    output = decode_output(answer(CALLERS * EACH), PROTOBUF)
    body = encode_json({"loss_fn_outputs": output.records, "metrics": {}})
    work = partial(_split_to_json, body, JSON)
    measure(work, target=2, unit="ms per MB", units=len(body) / MB)


def test_split_protobuf_to_json(measure) -> None:
    """Per MB of the JSON that callers get: of one byte of protobuf come five."""
    body = answer(CALLERS * EACH)
    written = sum(map(len, _split_to_json(body, PROTOBUF)))
    work = partial(_split_to_json, body, PROTOBUF)
    measure(work, target=8, unit="ms per MB", units=written / MB)


def test_batch_assembly(measure) -> None:
    """Ten small calls, from their bodies to the one request."""
    bodies = [call(1, tokens=32)] * 10

    def work() -> bytes:
        calls = [decode_training(one).datums for one in bodies]
        return _merged([encode_fragment(one, Flavour.PROTOBUF) for one in calls], Flavour.PROTOBUF)

    measure(work, target=0.5, unit="ms", units=1)
