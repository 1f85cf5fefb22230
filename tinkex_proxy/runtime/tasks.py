"""The one place that starts background tasks.

A bare `asyncio.create_task` may be collected while it runs and keeps its exception to itself. A
task started here has a name and a reference, and an exception nobody awaits is reported.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

T = TypeVar("T")

__all__ = ["Tasks"]


class Tasks:
    """The background tasks of one owner.

    Args:
        on_crash: told the name and the exception of a task that ended badly.
    """

    def __init__(self, on_crash: Callable[[str, BaseException], None]) -> None:
        self._on_crash = on_crash
        self._running: set[asyncio.Task[object]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run `work` in the background; nobody awaits it, so its exception is reported."""
        task = self.start(name, work)
        task.add_done_callback(self._report)
        return task

    def start(
        self,
        name: str,
        work: Coroutine[object, object, T],
        ended: Callable[[asyncio.Task[T]], None] | None = None,
    ) -> asyncio.Task[T]:
        """Run `work` as a task that somebody awaits.

        Args:
            name: of the task.
            work: what is run.
            ended: told when it has ended; a callback of the task's own would be another turn of the
                event loop.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        if ended is None:
            task.add_done_callback(self._running.discard)
            return task

        def over(task: asyncio.Task[T]) -> None:
            self._running.discard(task)
            ended(task)

        task.add_done_callback(over)
        return task

    async def cancel_all(self) -> None:
        """Cancel what runs and wait until it has ended."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(task.get_name(), error)
