"""Ending what is done for a caller when the caller hangs up, or when we end.

Whether a caller is still there is a task's work to find out, which costs more than a quick answer
does in all. So it begins a moment later: nearly every submit is answered by then.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, cast

from tinkex_proxy.api.asgi import CallerLeft, Receive
from tinkex_proxy.runtime.deadlines import deadlines

__all__ = ["Released", "Watch", "hung_up"]

# A caller who leaves sooner is noticed then, or a tenth of a second later.
AFTER_S: Final = 0.05


class Released(Exception):  # noqa: N818 - an event, not an error
    """We end, and what was done has not been given to its caller."""


async def hung_up(receive: Receive) -> None:
    """Wait until the caller has hung up; its body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Watch:
    """As a context, cancels what its task does within when nobody is there for it any more.

    Args:
        receive: tells when the caller hangs up; None where its body is still being read.
        released: set when we end; None where that is waited for.
        begun: whether the caller has been given something: then our end waits too.

    Raises:
        CallerLeft: at the end of the context, because the caller hung up.
        Released: because we end.
    """

    def __init__(
        self,
        receive: Receive | None,
        released: asyncio.Event | None = None,
        begun: Callable[[], bool] = lambda: False,
    ) -> None:
        self._receive = receive
        self._released = released
        self._begun = begun
        self._watchers: list[asyncio.Task[object]] = []
        self._why: type[Exception] | None = None
        self._over = False

    def __enter__(self) -> Self:
        """Watch, in a moment."""
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        self._call_off = deadlines().add(AFTER_S, self._begin)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Watch no more, and say why it ended if that was our doing."""
        self._over = True  # a watcher that has just ended has yet to say so
        self._call_off()
        for watcher in self._watchers:
            watcher.cancel()
        if self._why is None:
            return
        ours = self._task.uncancel() <= self._cancelling
        if ours and kind is asyncio.CancelledError:
            raise self._why from None

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        if self._receive is not None:
            gone = loop.create_task(hung_up(self._receive))
            gone.add_done_callback(lambda done: self._end(done, CallerLeft))
            self._watchers.append(gone)
        if self._released is not None:
            end = loop.create_task(self._released.wait())
            end.add_done_callback(self._end_unless_begun)
            self._watchers.append(end)

    def _end_unless_begun(self, watcher: "asyncio.Task[object]") -> None:
        if not self._begun():
            self._end(watcher, Released)

    def _end(self, watcher: "asyncio.Task[object]", why: type[Exception]) -> None:
        if not (self._over or watcher.cancelled() or self._why):
            self._why = why
            self._task.cancel()
