"""The end of a proxy, as everybody sees it who has a part in it: asked for, hurried, how far.

Whoever wants the proxy to end asks here: a signal, or an operator over HTTP. Whoever carries it out
(`server.py`) waits here, and says how far it is:

    serving → pausing → draining → leaving

*pausing*: not ready any more, and every call is still taken. *draining*: new calls are refused,
those taken on go on to their end. *leaving*: nothing is waited for any more but the last answers.
"""

import asyncio
import enum
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from tinkex_proxy.runtime.clock import Clock

__all__ = ["Ending", "OpenRequests", "Release", "Stage"]


class Stage(enum.Enum):
    """How far the end is."""

    SERVING = "serving"
    PAUSING = "pausing"
    DRAINING = "draining"
    LEAVING = "leaving"


class Ending:
    """The end of one proxy.

    Args:
        clock: measures what is left of a stage.

    Attributes:
        stage: how far it is.
        asked: set once somebody wants it.
        hurried: set once somebody wants it now.
        why: who wanted it, for people.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: float | None = None
        self.stage = Stage.SERVING
        self.asked = asyncio.Event()
        self.hurried = asyncio.Event()
        self.why: str | None = None

    def ask(self, why: str) -> None:
        """Begin the end; who asks again changes nothing."""
        if not self.asked.is_set():
            self.why = why
            self.asked.set()

    def enter(self, stage: Stage, *, lasts_s: float | None = None) -> None:
        """Be at a stage, for so many seconds at most."""
        self.stage = stage
        self._until = None if lasts_s is None else self._clock.now() + lasts_s

    @property
    def left_s(self) -> float | None:
        """Seconds that this stage can still take; None where nobody has said."""
        return None if self._until is None else max(0.0, self._until - self._clock.now())


class OpenRequests:
    """The requests of some kind that are being received or answered.

    As a context it counts one for as long as that lasts, as often as there are such.
    """

    def __init__(self) -> None:
        self.count = 0
        self._none = asyncio.Event()
        self._none.set()

    def enter(self) -> None:
        """Count one more; `leave` must follow."""
        self.count += 1
        if self.count == 1:
            self._none.clear()

    def leave(self) -> None:
        """Count one less."""
        self.count -= 1
        if self.count == 0:
            self._none.set()

    def __enter__(self) -> Self:
        """Count one more."""
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Count one less."""
        self.leave()

    async def none(self) -> None:
        """Wait until there is none."""
        await self._none.wait()


class Release:
    """The very end: lets go of those who are held, for they come again elsewhere."""

    def __init__(self) -> None:
        self._is_set = False
        self._held: dict[object, Callable[[], None]] = {}

    def is_set(self) -> bool:
        """Whether nobody is held any more."""
        return self._is_set

    def set(self) -> None:
        """Let everybody go, now and later."""
        self._is_set = True
        held, self._held = self._held, {}
        for let_go in list(held.values()):
            let_go()

    def hold(self, let_go: Callable[[], None]) -> Callable[[], object]:
        """Have a function called at the end; soon, if it has come. What it gives calls that off."""
        if self._is_set:
            return asyncio.get_running_loop().call_soon(let_go).cancel
        held = object()
        self._held[held] = let_go
        return partial(self._held.pop, held, None)
