"""A context whose task others can end, with the reason that it then raises.

`asyncio.timeout` is one such, for one reason; this is its mechanism for any.
"""

import asyncio
from types import TracebackType
from typing import Self

__all__ = ["Endable", "is_cancelled"]


class Endable:
    """What is waited for within can be ended from outside.

    Raises:
        Exception: at the end of the context, the one that `end` was given.
    """

    __slots__ = ("_cancelling", "_over", "_task", "_why")

    def __init__(self) -> None:
        self._why: Exception | None = None
        self._over = False

    def __enter__(self) -> Self:
        """It can be ended from here on."""
        self._task: asyncio.Task[object] = asyncio.current_task()  # type: ignore[assignment]
        self._cancelling = self._task.cancelling()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """It cannot any more; raises why it was, unless somebody else ends the task too."""
        self._over = True
        why, self._why = self._why, None
        if why is None:
            return
        try:
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise why from None
        finally:
            del why  # whose traceback holds this

    def end(self, why: Exception) -> None:
        """End what is waited for within; only the first reason counts, and none after its end."""
        if self._why is None and not self._over:
            self._why = why
            self._task.cancel()


def is_cancelled() -> bool:
    """Whether somebody cancels the task that runs, and not only what it waits for."""
    this = asyncio.current_task()
    return this is not None and this.cancelling() > 0
