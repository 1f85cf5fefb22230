"""Writing answers, so that a large one holds nobody up for long."""

import msgspec

from tinkex_proxy.wire.answers import TrainingAnswer

__all__ = ["encode_answer"]


def encode_answer(answer: object, **before: str) -> bytes:
    """An answer in JSON; of a training answer one datum's outputs after the other.

    The encoder is one call that nothing else in the process can interrupt, and the numbers of a
    large answer take it tens of milliseconds.

    Args:
        answer: what is answered.
        before: fields that come first in an object.
    """
    if isinstance(answer, TrainingAnswer):
        records = [msgspec.Raw(msgspec.json.encode(one)) for one in answer.loss_fn_outputs]
        fields = {name: getattr(answer, name) for name in answer.__struct_fields__}
        answer = {**fields, "loss_fn_outputs": records}
    return msgspec.json.encode({**before, **answer} if isinstance(answer, dict) else answer)
