import json
import math

import msgspec

from tinkex_proxy.wire.answers import BatchInfo, TrainingAnswer
from tinkex_proxy.wire.output import TensorOut


def test_a_training_answer_is_json_with_exact_numbers() -> None:
    """A float32 is written as the double that equals it; what is no number as null."""
    tenth = 0.10000000149011612  # float32(0.1)
    answer = TrainingAnswer(
        loss=math.nan,
        loss_fn_outputs=({"logprobs": TensorOut([tenth, -math.inf], "float32", [2])},),
        metrics={},
        batch=BatchInfo(id="b", requests=1, datums=1, index=0, metrics={"a:sum": 1.5}),
    )
    assert json.loads(msgspec.json.encode(answer)) == {
        "loss": None,
        "loss_fn_outputs": [
            {"logprobs": {"data": [tenth, None], "dtype": "float32", "shape": [2]}}
        ],
        "metrics": {},
        "batch": {
            "id": "b",
            "requests": 1,
            "datums": 1,
            "index": 0,
            "metrics": {"a:sum": 1.5},
        },
    }
