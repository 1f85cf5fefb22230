"""Ending what is done for a caller when the caller hangs up, or when we end.

Whether a caller is still there is a task's work to find out, which costs more than a quick answer
does in all. So it begins a moment later: nearly every submit is answered by then.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from typing_extensions import override

from tinkex_proxy.api.asgi import CallerLeft, Receive
from tinkex_proxy.runtime.deadlines import deadlines
from tinkex_proxy.runtime.endable import Endable

__all__ = ["Released", "Watch", "hung_up"]

# A caller who leaves sooner is noticed then, or a tenth of a second later.
AFTER_S: Final = 0.05


class Released(Exception):  # noqa: N818 - an event, not an error
    """We end, and what was done has not been given to its caller."""


async def hung_up(receive: Receive) -> None:
    """Wait until the caller has hung up; its body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Watch(Endable):
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
        super().__init__()
        self._receive = receive
        self._released = released
        self._begun = begun
        self._watchers: list[asyncio.Task[object]] = []

    @override
    def __enter__(self) -> Self:
        """Watch, in a moment."""
        self._booked = deadlines().book(AFTER_S, self, self._begin)
        return super().__enter__()

    @override
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Watch no more, and say why it ended if that was our doing."""
        self._booked.pop(self, None)
        for watcher in self._watchers:
            watcher.cancel()
        super().__exit__(kind, error, trace)

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        if self._receive is not None:
            gone = loop.create_task(hung_up(self._receive))
            gone.add_done_callback(self._gone)
            self._watchers.append(gone)
        if self._released is not None:
            end = loop.create_task(self._released.wait())
            end.add_done_callback(self._ending)
            self._watchers.append(end)

    def _gone(self, watcher: "asyncio.Task[object]") -> None:
        if not watcher.cancelled():
            self.end(CallerLeft())

    def _ending(self, watcher: "asyncio.Task[object]") -> None:
        if not (watcher.cancelled() or self._begun()):
            self.end(Released())
