"""Whether an upstream knows a repeated training request again: found out without harm, if need be.

A submit whose answer was lost may have run. To send it again is safe only where the upstream knows
a request by its model and number and gives the first one's future. SkyRL 0.4.0 does; the JSON
generation (SkyRL 0.3.0) runs it twice; of the hosted service it is not public. So nothing is
assumed: the first time that it matters, the upstream is asked. A `forward` of one token, which
leaves no gradient, goes twice under one number, the lane's next but one. The same future both
times: repetitions are known again, and the lost submit is sent again. Two futures: they are not,
and its caller is told that the outcome is unknown. The answer holds for this upstream from then on.

The number is used either way, so the lane passes over it. On an upstream that runs a model's
requests in the order of their numbers the question waits behind the lost submit, as it should: it
is the answers to the submits that tell, not the results.

Where all is well nothing is ever asked. A setting says what is known beforehand.
"""

import asyncio
import enum
import uuid
from typing import Final, NamedTuple

import msgspec

from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.retry import DISBELIEVED, Kind
from tinkex_proxy.runtime.submit import Admitted, Refused, Submitter
from tinkex_proxy.runtime.upstream import Ask
from tinkex_proxy.wire.datum import Flavour, parse_datums
from tinkex_proxy.wire.merge import encode_fragment, merge

__all__ = ["Assumed", "Found", "Recognition"]

_ONE_TOKEN: Final = msgspec.Raw(b'{"tokens":[0],"targets":[0],"weights":[0.0]}')


class Assumed(enum.Enum):
    """What is assumed of an upstream that has not been asked."""

    ASK = "ask"
    YES = "yes"
    NO = "no"


class Found(NamedTuple):
    """What asking has brought.

    Attributes:
        known: whether repetitions are known again; None where it could not be told.
        used: whether the number is used; None where that is not known.
    """

    known: bool | None
    used: bool | None


class Recognition:
    """What is known of one upstream.

    Args:
        assumed: what is assumed until it is asked.
    """

    def __init__(self, assumed: Assumed = Assumed.ASK) -> None:
        self._known = {Assumed.ASK: None, Assumed.YES: True, Assumed.NO: False}[assumed]
        self._asking = asyncio.Lock()

    def known(self, flavour: Flavour) -> bool | None:
        """Whether repetitions are known again by an upstream of this flavour; None: ask it."""
        if self._known is None and flavour is Flavour.JSON:
            return False
        return self._known

    async def ask(self, submitter: Submitter, model_id: str, seq_id: int) -> Found:
        """Ask an upstream of the protobuf generation, and wait for one that is away or held back.

        Whatever kept the answer of the request in doubt is likely to meet this question too.

        Args:
            submitter: whom to ask.
            model_id: one of its models, of which a request is in doubt.
            seq_id: a number of that model's that is not used and not the next.
        """
        async with self._asking:
            if self._known is not None:
                return Found(self._known, used=False)
            ask = _question(model_id, seq_id)
            first = await _submit(submitter, ask)
            if isinstance(first, Refused):
                return Found(None, used=False if _is_refusal(first) else None)
            second = await _submit(submitter, ask)
            if isinstance(second, Refused):
                # 409: the number is known again, and the request is not.
                self._known = False if second.status == 409 else None
            elif first.request_id is not None:
                self._known = second.request_id == first.request_id
            return Found(self._known, used=True)


async def _submit(submitter: Submitter, ask: Ask) -> Admitted | Refused:
    """Ask; a refusal may be a gateway's, and is not believed at once."""
    verdict = await submitter.submit(ask)
    for _ in range(DISBELIEVED):
        if not isinstance(verdict, Refused) or not _is_refusal(verdict) or verdict.status == 409:
            break
        verdict = await submitter.submit(ask)
    return verdict


def _is_refusal(verdict: Refused) -> bool:
    return verdict.status is not None and 400 <= verdict.status < 500


def _question(model_id: str, seq_id: int) -> Ask:
    submit = merge(
        [encode_fragment(parse_datums([_ONE_TOKEN]), Flavour.PROTOBUF)],
        model_id=model_id,
        seq_id=seq_id,
        loss_fn="cross_entropy",
        loss_fn_config={},
        forward_only=True,
        flavour=Flavour.PROTOBUF,
    )
    return Ask(
        operation=Operation.SUBMIT,
        path=submit.path,
        body=submit.body,
        content_type=submit.content_type,
        identity=uuid.uuid4().hex,
        kind=Kind.CANARY,
        persistent=True,
        flow=("lane", model_id),
    )
