"""Whose turn it is where many wait for the same thing: every flow in turn, within one the oldest.

One line for all would be fair to requests and unfair to those who send them: a rollout's two
thousand samples, come together, stand in front of the one `optim_step` that a training loop waits
for. Here each flow (a lane, a sampling session) has a line of its own and the flows take turns, so
that nobody waits longer than one turn of every other flow for each that stands before him in his
own line. All turns count alike (Nagle's fair queueing, RFC 970): what waits are single requests of
bounded size, so weighing them by bytes would change little.

Each operation takes the same time however many wait, and nothing is remembered of a flow that has
nothing waiting.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["FairLine"]

T = TypeVar("T")


class FairLine(Generic[T]):
    """Things that wait, each in the line of its flow."""

    def __init__(self) -> None:
        self._flows = OrderedDict[Hashable, OrderedDict[int, T]]()  # whose turn is next, first
        self._places: dict[int, Hashable] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def flows(self) -> int:
        """Flows that have something waiting."""
        return len(self._flows)

    def add(self, flow: Hashable, thing: T) -> int:
        """Put a thing behind all of its flow; gives the number of its place, for `remove`."""
        self._last += 1
        self._flows.setdefault(flow, OrderedDict())[self._last] = thing
        self._places[self._last] = flow
        return self._last

    def remove(self, place: int) -> bool:
        """Take a thing out; False when it has had its turn already."""
        if place not in self._places:
            return False
        flow = self._places.pop(place)
        line = self._flows[flow]
        del line[place]
        if not line:
            del self._flows[flow]
        return True

    def take(self) -> T:
        """Give the oldest thing of the flow whose turn it is; that flow is last from then on.

        Raises:
            LookupError: nothing waits.
        """
        if not self._flows:
            raise LookupError("nothing waits")
        flow, line = next(iter(self._flows.items()))
        place, thing = line.popitem(last=False)
        del self._places[place]
        if line:
            self._flows.move_to_end(flow)
        else:
            del self._flows[flow]
        return thing
