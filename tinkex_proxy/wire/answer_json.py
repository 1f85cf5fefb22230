"""Writing answers, so that a large one holds nobody up for long."""

import msgspec

from tinkex_proxy.wire.answers import TrainingAnswer
from tinkex_proxy.wire.output import encode_json

__all__ = ["encode_answer"]

# What is written in their place first.
_NO_OUTPUTS = b'"loss_fn_outputs":['


def encode_answer(answer: object, **before: str) -> bytes:
    """An answer in JSON; of a training answer one datum's outputs after the other.

    The encoder is one call that nothing else in the process can interrupt, and the numbers of a
    large answer take it tens of milliseconds. Joining what it wrote is none such: Python lets
    others go on while it joins megabytes.

    Args:
        answer: what is answered.
        before: fields that come first in an object.
    """
    if isinstance(answer, TrainingAnswer) and not before and len(answer.loss_fn_outputs) < 2:
        return encode_json(answer)  # there is nothing to interrupt it between
    if not isinstance(answer, TrainingAnswer):
        return encode_json({**before, **answer} if isinstance(answer, dict) else answer)
    fields = {name: getattr(answer, name) for name in answer.__struct_fields__}
    bare = msgspec.json.encode({**before, **fields, "loss_fn_outputs": ()})
    head, key, tail = bare.partition(_NO_OUTPUTS)  # a quote in a text stands behind a backslash
    records = [encode_json(record) for record in answer.loss_fn_outputs]
    listed = [piece for record in records for piece in (b",", record)][1:]
    return b"".join([head, key, *listed, tail])
