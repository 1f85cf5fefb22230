"""Waiting for leave to submit, where the upstream has asked a key to slow down.

`core.throttle` decides how many of one key's submits may be out and from when; here they wait, in
the order they came.
"""

import asyncio

from tinkex_proxy.core.throttle import Throttle
from tinkex_proxy.runtime.clock import Clock

__all__ = ["Pace"]

# What a 429 without Retry-After means; the SDK's figure.
DEFAULT_WAIT_S = 1.0
_SLOW_DOWN = frozenset({402, 429})


class Pace:
    """The line in front of one key's submits.

    Args:
        clock: measures and sleeps.
        most: submits that may be out at once while nothing is refused.
    """

    def __init__(self, clock: Clock, *, most: int) -> None:
        self._clock = clock
        self._throttle = Throttle(most)
        self._head = asyncio.Lock()
        self._freed = asyncio.Event()
        self._reason: str | None = None

    async def go(self) -> float:
        """Wait for leave to submit; gives the moment of it. `ended` must follow."""
        if self._head.locked() or not self._throttle.may_go(self._clock.now()):
            async with self._head:
                await self._turn()
                self._throttle.went()
        else:
            self._throttle.went()
        return self._clock.now()

    def ended(self, sent_at: float, status: int | None, *, wait_s: float | None) -> None:
        """Note how a submit was answered.

        Args:
            sent_at: what `go` gave.
            status: of the answer, or None when there was none.
            wait_s: seconds that a refusal asks to wait, if it says so.
        """
        self.heard(sent_at, status, wait_s=wait_s)
        self._throttle.ended()
        self._freed.set()

    def heard(self, sent_at: float, status: int | None, *, wait_s: float | None) -> None:
        """Note what an answer says about the pace, whoever's it was."""
        if status in _SLOW_DOWN:
            now = self._clock.now()
            wait_s = wait_s or DEFAULT_WAIT_S
            self._throttle.refused(sent_at=sent_at, now=now, wait_s=wait_s)
            self._reason = f"the upstream answered {status}"
        elif status is not None and status < 400:
            self._throttle.admitted()

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
            "held_back_s": 0.0 if held is None else round(held[0], 3),
            "held_back_reason": None if held is None else held[1],
        }

    async def _turn(self) -> None:
        """Wait at the head of the line until one more may go."""
        while not self._throttle.may_go(now := self._clock.now()):
            until = self._throttle.held_until(now)
            if until is not None:
                await self._clock.sleep(until - now)
                continue
            self._freed.clear()
            await self._freed.wait()
