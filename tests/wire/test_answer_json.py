"""An answer that is written piece by piece is the answer."""

import math

import msgspec
import pytest

from tinkex_proxy.wire.answer_json import encode_answer
from tinkex_proxy.wire.answers import BatchInfo, OptimStepAnswer, TrainingAnswer
from tinkex_proxy.wire.output import TensorOut

ANSWER = TrainingAnswer(
    loss=6.25,
    loss_fn_outputs=(
        {"logprobs": TensorOut([-1.5, math.nan, 0.1], shape=[3]), "ids": TensorOut([7], "int64")},
        {},
    ),
    metrics={"loss:sum": 6.25},
    batch=BatchInfo("m#1", 2, 4, 1, {"loss:sum": 9.5}),
)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_its_outputs_stand_where_they_belong(count: int) -> None:
    """Whatever the metrics are called."""
    outputs = ANSWER.loss_fn_outputs[:1] * count
    metrics = {'"loss_fn_outputs":[': 1.0}
    answer = msgspec.structs.replace(ANSWER, loss_fn_outputs=outputs, metrics=metrics)
    assert encode_answer(answer) == msgspec.json.encode(answer)


def test_a_training_answer_reads_as_written_at_once() -> None:
    assert encode_answer(ANSWER) == msgspec.json.encode(ANSWER)


def test_an_item_of_a_batch_says_first_how_it_went() -> None:
    whole = msgspec.json.decode(encode_answer(ANSWER, status="ok"))
    assert whole == {"status": "ok", **msgspec.json.decode(msgspec.json.encode(ANSWER))}
    assert encode_answer({"metrics": None}, status="ok") == b'{"status":"ok","metrics":null}'
    assert encode_answer({}, status="ok") == b'{"status":"ok"}'


def test_any_other_answer_is_written_as_it_is() -> None:
    assert encode_answer({"path": "p"}) == b'{"path":"p"}'
    assert encode_answer(OptimStepAnswer({"grad_norm": 1.5})) == b'{"metrics":{"grad_norm":1.5}}'
