"""Waiting for leave to submit, where the upstream has asked a key to slow down.

`core.throttle` decides how many of one key's submits may be out and from when, `core.fair` whose
turn it is: lanes and sampling sessions take turns, so that none of them can keep the others away.

Whoever still has something to decide when it leaves (which calls make up a batch; whether the
caller is still there) gets its leave first, as a `Leave`, and sends with that. Who gives up waiting
is out of the line at once, and a leave that came to nobody goes to the next.
"""

import asyncio
from collections.abc import Hashable
from types import TracebackType
from typing import Self

from tinkex_proxy.core.fair import FairLine
from tinkex_proxy.core.throttle import Throttle
from tinkex_proxy.runtime.clock import Clock

__all__ = ["Leave", "Pace"]

# What a 429 without Retry-After means; the SDK's figure.
DEFAULT_WAIT_S = 1.0
_SLOW_DOWN = frozenset({402, 429})


class Leave:
    """Leave to submit once, waited for in `async with`; unused, it is given back at the end of it.

    Args:
        pace: whose line.
        flow: whose turn is taken.
    """

    def __init__(self, pace: "Pace", flow: Hashable) -> None:
        self._pace = pace
        self.flow = flow
        self._from: float | None = None

    def at_once(self) -> bool:
        """Take it if nothing has to be waited for; if so, `give_back` must follow."""
        self._from = self._pace.at_once()
        return self._from is not None

    async def wait(self) -> Self:
        """Wait for it; `give_back` must follow, whatever happens."""
        self._from = await self._pace.go(self.flow)
        return self

    def give_back(self) -> None:
        """Let another have it, if nobody has used it."""
        if (unused := self.use()) is not None:
            self._pace.ended(unused, None, wait_s=None)

    async def __aenter__(self) -> Self:
        """Wait for it."""
        return await self.wait()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give it back if nobody has used it."""
        self.give_back()

    def use(self) -> float | None:
        """The moment from which it holds, for the first who asks; `Pace.ended` must follow."""
        moment, self._from = self._from, None
        return moment


class Pace:
    """The line in front of one key's submits.

    Args:
        clock: measures and wakes.
        most: submits that may be out at once while nothing is refused.
    """

    def __init__(self, clock: Clock, *, most: int) -> None:
        self._clock = clock
        self._throttle = Throttle(most)
        self._line = FairLine[asyncio.Future[float]]()
        self._alarm_at: float | None = None
        self._reason: str | None = None

    def leave(self, flow: Hashable) -> Leave:
        """Leave to submit once, to be waited for."""
        return Leave(self, flow)

    def at_once(self) -> float | None:
        """Leave to submit if there is any now; gives the moment of it. `ended` must follow."""
        now = self._clock.now()
        if len(self._line) or not self._throttle.may_go(now):
            return None
        self._throttle.went()
        return now

    async def go(self, flow: Hashable = None) -> float:
        """Wait for leave to submit; gives the moment of it. `ended` must follow.

        Args:
            flow: whose turn it takes, if turns have to be taken.
        """
        if (now := self.at_once()) is not None:
            return now
        turn: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        place = self._line.add(flow, turn)
        self._let_go()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._line.remove(place)
            else:  # its turn had just come; it is another's now
                self._throttle.ended()
                self._let_go()
            raise

    def ended(self, sent_at: float, status: int | None, *, wait_s: float | None) -> None:
        """Note how a submit was answered.

        Args:
            sent_at: what `go` gave.
            status: of the answer, or None when there was none.
            wait_s: seconds that a refusal asks to wait, if it says so.
        """
        self.heard(sent_at, status, wait_s=wait_s)
        self._throttle.ended()
        self._let_go()

    def heard(self, sent_at: float, status: int | None, *, wait_s: float | None) -> None:
        """Note what an answer says about the pace, whoever's it was."""
        if status in _SLOW_DOWN:
            now = self._clock.now()
            wait_s = wait_s or DEFAULT_WAIT_S
            self._throttle.refused(sent_at=sent_at, now=now, wait_s=wait_s)
            self._reason = f"the upstream answered {status}"
        elif status is not None and status < 400 and self._throttle.admitted():
            self._let_go()

    def held_back(self) -> tuple[float, str] | None:
        """For how many seconds no submit goes, and why; None when they go."""
        now = self._clock.now()
        until = self._throttle.held_until(now)
        return None if until is None else (until - now, self._reason or "")

    def held_s(self) -> float:
        """For how many seconds submits have been held back so far, in all."""
        return self._throttle.held_s(self._clock.now())

    def snapshot(self) -> dict[str, object]:
        """What `GET /lanes` shows of a key."""
        held = self.held_back()
        return {
            "submits_out": self._throttle.out,
            "submits_limit": self._throttle.limit,
            "submits_waiting": len(self._line),
            "held_back_s": 0.0 if held is None else round(held[0], 3),
            "held_back_reason": None if held is None else held[1],
        }

    def _let_go(self) -> None:
        """Give leave to as many as may go now; see to it that the rest is thought of in time."""
        if not len(self._line):
            return
        now = self._clock.now()
        while len(self._line) and self._throttle.may_go(now):
            turn = self._line.take()
            if not turn.cancelled():
                self._throttle.went()
                turn.set_result(now)
        until = self._throttle.held_until(now)
        if len(self._line) and until is not None and self._alarm_at is None:
            self._alarm_at = until
            self._clock.call_later(until - now, self._alarm)

    def _alarm(self) -> None:
        """The time to hold back is over, unless it has been prolonged."""
        self._alarm_at = None
        self._let_go()
