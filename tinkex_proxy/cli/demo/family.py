"""The demo's children and its signals: whatever comes is noticed, and leaves nothing behind.

The main thread does nothing but wait, on descriptors (`select`). The demo itself goes on in a
thread, and a signal writes its number into a pipe (`signal.set_wakeup_fd`), whose bytes are there
whenever it came and whichever thread the kernel gave it to. A handler that raised instead would do
so wherever the demo is, where a lock may be taken and never given back; and one that came just
before a wait that no descriptor ends would be seen after it, that is, never.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import Final, Self, TypeAlias, TypeVar

from tinkex_proxy.cli.demo.children import Child
from tinkex_proxy.cli.exits import FAILED, CommandError

__all__ = ["Family"]

T = TypeVar("T")
_Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | signal.Handlers | None

START_TIMEOUT_S: Final = 30.0
# For a demo whose children have ended: its calls break, and no wait between them is longer.
WORK_TIMEOUT_S: Final = 5.0
# A shell starts background jobs with SIGINT ignored; Ctrl-C is how this command is ended.
_HEARD: Final = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Family:
    """The children of one demo: a death is an error at once, and none outlives the demo.

    While it is open it owns the process's signals, and its methods are the main thread's. One that
    waits raises `KeyboardInterrupt` on Ctrl-C, `SystemExit` on another signal that ends a process,
    and `CommandError` when a child has died.
    """

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._works: list[threading.Thread] = []
        self._before: list[tuple[signal.Signals, _Handler]] = []
        self._signals = self._rings = self._rang_before = -1
        self._ending = False

    def __enter__(self) -> Self:
        self._signals, self._rings = os.pipe()
        os.set_blocking(self._rings, False)
        self._rang_before = signal.set_wakeup_fd(self._rings, warn_on_full_buffer=False)
        for number in _HEARD:
            self._before.append((number, signal.signal(number, _heard)))
        return self

    def __exit__(self, *_: object) -> None:
        # Signals go on into the pipe: a second Ctrl-C must not leave a child behind.
        for child in reversed(self._children):
            child.stop()
        for work in self._works:
            work.join(WORK_TIMEOUT_S)
        for number, handler in self._before:
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._rang_before)
        os.close(self._signals)
        os.close(self._rings)

    def start(self, child: Child, *, timeout_s: float = START_TIMEOUT_S) -> str:
        """Take a child in and wait until it listens; gives its URL.

        Raises:
            CommandError: it did not get there in time.
        """
        self._children.append(child)
        until = time.monotonic() + timeout_s
        while self.wait(child.said, timeout_s=max(0.0, until - time.monotonic())):
            url = child.url()
            if url is not None:
                return url
        raise CommandError(f"the {child.name} was not ready after {timeout_s:g} s", status=FAILED)

    def attend(self, work: Callable[[], T]) -> T:
        """Do something in a thread; gives or raises what came of it.

        When a signal or a death comes first, the thread is left to find that its calls fail.
        """
        outcome: Future[T] = Future()
        done, tells = os.pipe()

        def do() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:  # noqa: BLE001 - who waits for it raises it
                outcome.set_exception(error)
            finally:
                os.close(tells)

        thread = threading.Thread(target=do, daemon=True)
        self._works.append(thread)
        thread.start()
        try:
            self.wait(done)
        finally:
            os.close(done)
        return outcome.result()

    def wait(self, descriptor: int | None = None, *, timeout_s: float | None = None) -> bool:
        """Wait until a descriptor can be read; gives whether it can, or the time was over first.

        Args:
            descriptor: None waits for signals and deaths alone.
            timeout_s: None waits for ever.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            wanted = [self._signals] if descriptor is None else [self._signals, descriptor]
            ready, _, _ = select.select(wanted, [], [], left)
            if self._signals not in ready:
                return bool(ready)
            self._obey(os.read(self._signals, 4096))

    def _obey(self, numbers: bytes) -> None:
        ends = [number for number in numbers if number != signal.SIGCHLD]
        if ends:
            self._ending = True
            raise KeyboardInterrupt if signal.SIGINT in ends else SystemExit(128 + ends[0])
        # A terminal sends Ctrl-C to the children too: that they obey is no error.
        for child in [] if self._ending else self._children:
            if not child.is_alive():
                raise child.death()


def _heard(_: int, __: FrameType | None) -> None:
    """Do nothing: the pipe has it."""
