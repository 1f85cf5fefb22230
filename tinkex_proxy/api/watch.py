"""Ending what is done for a caller when the caller hangs up, or when we end.

ASGI says that a caller has hung up to who asks for the next message, and so it takes a task for
each call that lasts. Our own server is where the connection ends, and tells whoever it has promised
to tell (`tinkex.leaving` in the scope's extensions, `cycle.py`): at once, and for next to nothing.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar

from typing_extensions import override

from tinkex_proxy.api.asgi import LEAVING, CallerLeft, Receive, Scope
from tinkex_proxy.runtime.deadlines import book
from tinkex_proxy.runtime.drain import Release
from tinkex_proxy.runtime.endable import Endable

__all__ = ["Leaving", "Released", "Until", "Watch", "leaving_of"]

T = TypeVar("T")

# Has a function called when a caller hangs up, on the event loop and never within this call; what
# it gives calls that off.
Leaving: TypeAlias = Callable[[Callable[[], None]], Callable[[], object]]


class Released(Exception):  # noqa: N818 - an event, not an error
    """We end, and what was done has not been given to its caller."""


def leaving_of(scope: Scope, receive: Receive) -> Leaving:
    """What tells when the caller of a request hangs up; its body has been read.

    Args:
        scope: what the request came as.
        receive: tells it where the server does not otherwise.
    """
    offered = scope.get("extensions")
    tells: Leaving | None = offered.get(LEAVING) if isinstance(offered, dict) else None
    return partial(_asking, receive) if tells is None else tells


def _asking(receive: Receive, on_left: Callable[[], None]) -> Callable[[], object]:
    def ended(asks: "asyncio.Task[None]") -> None:
        if not asks.cancelled():
            on_left()

    asks = asyncio.get_running_loop().create_task(_hung_up(receive))
    asks.add_done_callback(ended)
    return asks.cancel


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Watch(Endable):
    """As a context, cancels what its task does within when nobody is there for it any more.

    Args:
        leaving: tells when the caller hangs up; None where its body is still being read.
        release: lets go of who is held when we end; None where that is waited for.
        begun: whether the caller has been given something: then our end waits too.

    Raises:
        CallerLeft: at the end of the context, because the caller hung up.
        Released: because we end.
    """

    __slots__ = ("_begun", "_leaving", "_release", "_stays", "_unheld")

    def __init__(
        self,
        leaving: Leaving | None,
        release: Release | None = None,
        begun: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self._leaving = leaving
        self._release = release
        self._begun = begun

    @override
    def __enter__(self) -> Self:
        """Watch."""
        super().__enter__()
        self._stays = None if self._leaving is None else self._leaving(self._gone)
        self._unheld = None if self._release is None else self._release.hold(self._ending)
        return self

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Watch no more, and say why it ended if that was our doing."""
        if self._stays is not None:
            self._stays()
        if self._unheld is not None:
            self._unheld()
        super().__exit__(kind, error, trace)

    def _gone(self) -> None:
        self.end(CallerLeft())

    def _ending(self) -> None:
        if not self._begun():
            self.end(Released())


class Until(Generic[T]):
    """As a context, waits for what ends somewhere else, and as long as there is somebody to wait.

    `asyncio.wait` waits for several things too, and sets a timer of the event loop each time.

    Args:
        awaited: what is waited for; how it ends is not looked at.
        leaving: tells when the caller hangs up.
        seconds: how long it is waited for at most, or None.
        release: lets go of who is held when we end; None where that is waited for.

    Attributes:
        came: can be awaited until the wait is over, for whichever reason.
        left: whether the caller has hung up.
    """

    __slots__ = (
        *("_awaited", "_leaving", "_release", "_seconds", "_stays", "_timer", "_unheld"),
        *("came", "left"),
    )

    def __init__(
        self,
        awaited: "asyncio.Future[T]",
        leaving: Leaving,
        seconds: float | None,
        release: Release | None = None,
    ) -> None:
        self._awaited = awaited
        self._leaving = leaving
        self._seconds = seconds
        self._release = release
        self.left = False

    def __enter__(self) -> Self:
        """The wait begins."""
        self.came: asyncio.Future[None] = self._awaited.get_loop().create_future()
        self._awaited.add_done_callback(self._over)
        self._stays = self._leaving(self._leave)
        self._unheld = None if self._release is None else self._release.hold(self._over)
        self._timer = None if self._seconds is None else book(self._seconds, self, self._over)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It is over."""
        if not self._awaited.done():
            self._awaited.remove_done_callback(self._over)
        self._stays()
        if self._unheld is not None:
            self._unheld()
        if self._timer is not None:
            self._timer.pop(self, None)

    def _leave(self) -> None:
        self.left = True
        self._over()

    def _over(self, _: object = None) -> None:
        if not self.came.done():
            self.came.set_result(None)
