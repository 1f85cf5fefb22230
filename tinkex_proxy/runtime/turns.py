"""Calls of one key put their work on lanes in the order in which they came.

A call with a small body does so at once. One with a large body is decoded beside the event loop
(`aside.py`), and what came later must not overtake it meanwhile: a caller that was promised its
answer (202) may send its `optim_step` long before its megabytes are read. Whose model a body is for
is known only when it is decoded, so the order is that of the key's calls, whatever their models.

Where nothing large is under way there is no turn to be taken, and nothing is waited for.
"""

import asyncio

__all__ = ["Turn", "Turns"]


class Turn:
    """One call's place in the order.

    Args:
        turns: the order.
        before: what has to be over before its turn comes.
    """

    def __init__(self, turns: "Turns", before: tuple["asyncio.Future[None]", ...]) -> None:
        self._turns = turns
        self._before = before
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def come(self) -> None:
        """Wait until all that came before have put their work on their lanes, or ended."""
        pending = [over for over in self._before if not over.done()]
        if pending:
            await asyncio.wait(pending)

    def leave(self) -> None:
        """Its work is on its lane, or never will be. A second time it says nothing."""
        self._turns.forget(self)
        if not self.over.done():
            self.over.set_result(None)


class Turns:
    """The order of one key's calls."""

    def __init__(self) -> None:
        self._under_way: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def take(self, *, large: bool = False) -> Turn | None:
        """The turn of a call that is here now; None where it has nobody to wait for.

        Args:
            large: whether it will be a while before its work is on its lane.
        """
        return self.join() if large or self._under_way else None

    def join(self) -> Turn:
        """A place behind all that are under way."""
        turn = Turn(self, tuple(self._under_way))
        self._under_way[turn.over] = None
        return turn

    async def pass_by(self) -> None:
        """Wait until all that came before have put their work on their lanes, with no turn."""
        if (turn := self.take()) is not None:
            try:
                await turn.come()
            finally:
                turn.leave()

    def forget(self, turn: Turn) -> None:
        """A turn is over."""
        self._under_way.pop(turn.over, None)
