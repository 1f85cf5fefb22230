"""One lane's submits and what its numbers are worth: in doubt, used by others, behind.

A submit that was given up may have reached the upstream, so its number is **in doubt**: a later 409
to it says that it is used, and its batch takes the next one. After a restart the journal may be
behind its lane (it could not be written, or lost its last moments with the machine's power): then
numbers are passed over one by one until one is taken.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from tinkex_proxy.core.lane import Lane
from tinkex_proxy.errors import ModelGone, ProxyError
from tinkex_proxy.runtime.recognition import Recognition
from tinkex_proxy.runtime.submit import Admitted, Refused, Submitter
from tinkex_proxy.runtime.upstream import Ask
from tinkex_proxy.wire.datum import Flavour

__all__ = ["Admitter", "gone_for"]

# How far a journal may be behind its lane. Each number costs a refusal.
MAX_BEHIND: Final = 100
# A 409 to one of these is about its number. To others it may be about a checkpoint's name.
_NUMBERED: Final = frozenset({"/api/v1/forward_backward", "/api/v1/forward", "/api/v1/optim_step"})


class Admitter:
    """Gets one lane's requests admitted.

    Args:
        model_id: the lane's model.
        lane: its numbers.
        submitter: submits.
        recognition: whether the upstream knows repetitions again.
        knows: asks the upstream whether it still has a model.
    """

    def __init__(
        self,
        model_id: str,
        lane: Lane,
        submitter: Submitter,
        recognition: Recognition,
        knows: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._model_id = model_id
        self._lane = lane
        self._submitter = submitter
        self._recognition = recognition
        self._knows = knows
        self._doubtful: set[int] = set()
        self._may_be_behind = 0

    def repeatable(self, flavour: Flavour) -> bool:
        """Whether the upstream is known to know repetitions again."""
        return self._recognition.known(flavour) is True

    async def admit(self, ask: Ask, flavour: Flavour) -> Admitted | Refused:
        """Submit; what may have run goes again only where the upstream would know it again."""
        verdict = await self._submitter.submit(ask)
        if isinstance(verdict, Admitted) or not verdict.doubtful or ask.repeatable:
            return verdict
        if not await self._is_recognised(flavour):
            return verdict
        return await self._submitter.resubmit(ask, verdict)

    async def gone(self, verdict: Admitted | Refused) -> ProxyError | None:
        """The error that says that the upstream has lost the model, if that is why it refused.

        A 404 can also be about a checkpoint, or a call that this upstream does not have: ask.
        """
        if isinstance(verdict, Admitted) or verdict.status not in {404, 410}:
            return None
        if await self._knows(self._model_id):
            return None
        return gone_for(self._model_id, verdict.error)

    def admitted(self) -> None:
        """The upstream took the submit on the wire."""
        self._doubtful.discard(self._lane.next_seq)
        self._lane.admitted()
        self._may_be_behind = 0

    def doubt(self, number: int) -> None:
        """A number may be used, or not."""
        self._doubtful.add(number)

    def resume(self) -> None:
        """The lane goes on from a journal, which may be behind."""
        self._may_be_behind = MAX_BEHIND
        self.doubt(self._lane.next_seq)

    def outnumbered(self, verdict: Refused, path: str) -> bool:
        """Whether the number on the wire turns out to be used; its batch then takes the next."""
        number = self._lane.next_seq
        if verdict.status != 409 or number not in self._doubtful:
            return False
        self._doubtful.discard(number)
        self._lane.outnumbered()
        if self._may_be_behind and path in _NUMBERED:
            self._may_be_behind -= 1
            self.doubt(self._lane.next_seq)
        return True

    async def _is_recognised(self, flavour: Flavour) -> bool:
        known, number = self._recognition.known(flavour), self._lane.ahead
        if known is None:
            known, used = await self._recognition.ask(self._submitter, self._model_id, number)
            if used:
                self._lane.use(number)
            elif used is None:
                self.doubt(number)
        return known is True


def gone_for(model_id: str, said: ProxyError) -> ModelGone:
    """The error for a model that the upstream has lost, by what it said."""
    error = ModelGone(f"The upstream no longer knows the model {model_id} ({said}).")
    error.upstream_said = said.upstream_said
    return error
