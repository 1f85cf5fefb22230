"""The plan of faults that is on now, and since when."""

from collections.abc import Callable

import msgspec

from tinkex_proxy.sandbox.dice import Decision, Dice
from tinkex_proxy.sandbox.plans import Plan

__all__ = ["Rehearsal"]


class Rehearsal:
    """Holds a plan that can be changed while requests come.

    Args:
        plan: to begin with.
        now: gives monotonic seconds.
    """

    def __init__(self, plan: Plan, now: Callable[[], float]) -> None:
        self._now = now
        self._dice = Dice(plan)
        self._since = now()

    def change(self, plan: Plan) -> None:
        """Go on with another plan: its windows begin now, its dice and counts anew."""
        self._dice = Dice(plan)
        self._since = self._now()

    def decide(self, path: str) -> Decision:
        """What happens to a request."""
        return self._dice.decide(path, self._now() - self._since)

    def described(self) -> dict[str, object]:
        """The plan, for how long it has been on, and how many requests each fault has hit."""
        fields: dict[str, object] = msgspec.to_builtins(self._dice.plan)
        return {
            **fields,
            "running_s": round(self._now() - self._since, 3),
            "hits": list(self._dice.hits),
        }
