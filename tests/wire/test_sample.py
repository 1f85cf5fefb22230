import json

import numpy as np
import pytest
from tinker.proto import tinker_public_pb2 as sdk
from tinker.proto.response_conv import deserialize_sample_response

from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.wire.sample import SampleAnswer, SampledSequence, decode_sample

PROTOBUF = "application/x-protobuf"


def ints(*values: int) -> bytes:
    return np.asarray(values, dtype="<i4").tobytes()


def floats(*values: float) -> bytes:
    return np.asarray(values, dtype="<f4").tobytes()


def topk(length: int, *cells: tuple[int, float]) -> sdk.TopkLogprobs:
    return sdk.TopkLogprobs(
        token_ids=ints(*(cell[0] for cell in cells)),
        logprobs=floats(*(cell[1] for cell in cells)),
        k=len(cells) // length,
        length=length,
    )


EMPTY = (0, -99999.0)
FULL = sdk.SampleResponse(
    sequences=[
        sdk.SampledSequence(
            stop_reason=sdk.STOP_REASON_LENGTH,
            tokens=ints(5, 6),
            logprobs=floats(-0.1, -2.5),
            topk_sampled_logprobs=topk(2, (5, -0.1), EMPTY, EMPTY, EMPTY),
        ),
        sdk.SampledSequence(stop_reason=sdk.STOP_REASON_STOP),
    ],
    prompt_logprobs=floats(float("nan"), -1.5),
    topk_prompt_logprobs=topk(2, EMPTY, EMPTY, (7, -1.5), (0, -2.0)),
    prompt_cache_hit_tokens=3,
)


def test_protobuf_answers_are_read_as_the_sdk_reads_them() -> None:
    """Where there is no number, there is a null; unused cells of the top k are left out."""
    body = FULL.SerializeToString()
    ours, theirs = decode_sample(body, PROTOBUF), deserialize_sample_response(body)
    assert len(ours.sequences) == len(theirs.sequences)
    for mine, its in zip(ours.sequences, theirs.sequences, strict=True):
        assert mine.tokens == its.tokens
        assert mine.logprobs == its.logprobs
        assert mine.stop_reason == its.stop_reason
        assert mine.topk_logprobs == its.topk_logprobs
    assert ours.prompt_logprobs == theirs.prompt_logprobs == [None, -1.5]
    assert ours.topk_prompt_logprobs == theirs.topk_prompt_logprobs
    assert ours.topk_prompt_logprobs == [None, [(7, -1.5), (0, -2.0)]]
    assert ours.prompt_cache_hit_tokens == 3


def test_what_was_not_asked_for_is_null() -> None:
    one = sdk.SampleResponse(sequences=[sdk.SampledSequence(tokens=ints(1))])
    assert decode_sample(one.SerializeToString(), PROTOBUF) == SampleAnswer(
        [SampledSequence([1], "stop")]
    )


def test_json_answers_are_read() -> None:
    """Fields of newer servers do no harm."""
    body = {
        "sequences": [
            {"tokens": [1], "logprobs": [-0.5], "stop_reason": "length", "sequence_id": "s"}
        ],
        "prompt_logprobs": [None, -1],
        "topk_prompt_logprobs": [None, [[3, -0.5]]],
        "type": "sample",
    }
    assert decode_sample(json.dumps(body).encode(), "application/json") == SampleAnswer(
        [SampledSequence([1], "length", [-0.5])], [None, -1.0], [None, [(3, -0.5)]]
    )


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"detail": "no"}', "application/json"),
        (b"", "application/json"),
        (b'{"sequences":[{"tokens":[],"stop_reason":"\xff"}]}', "application/json"),
        (b"\x0a\x05", PROTOBUF),
        (sdk.SampleResponse(prompt_logprobs=b"123").SerializeToString(), PROTOBUF),
        (
            sdk.SampleResponse(sequences=[sdk.SampledSequence(stop_reason=7)]).SerializeToString(),
            PROTOBUF,
        ),
        (
            sdk.SampleResponse(
                topk_prompt_logprobs=sdk.TopkLogprobs(token_ids=ints(1), k=1, length=1)
            ).SerializeToString(),
            PROTOBUF,
        ),
    ],
)
def test_what_is_no_answer_is_the_upstreams_fault(body: bytes, content_type: str) -> None:
    with pytest.raises(UpstreamFault):
        decode_sample(body, content_type)


def test_likeliest_tokens_that_are_there_and_none_are_no_list() -> None:
    """As where they are not there at all."""
    body = sdk.SampleResponse(topk_prompt_logprobs=sdk.TopkLogprobs()).SerializeToString()
    assert decode_sample(body, "application/x-protobuf").topk_prompt_logprobs is None
