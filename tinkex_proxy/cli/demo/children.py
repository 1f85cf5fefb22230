"""The demo's children: started, waited for, and ended whatever happens to the demo.

A child says on standard output that it is ready and on which URL; the ports are its own choice, so
that none is taken between our looking and its binding. What it logs goes to a file, whose end is
shown when it dies.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Self, TypeAlias

from tinkex_proxy.cli.exits import FAILED, CommandError
from tinkex_proxy.config import environment_without_settings

__all__ = ["Child", "Family"]

START_TIMEOUT_S: Final = 30.0
# Beyond what the proxy needs when nothing is in flight.
STOP_TIMEOUT_S: Final = 10.0
LOG_TAIL_LINES: Final = 15
READY: Final = "listening on "
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_Handler: TypeAlias = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


class Child:
    """One `tinkex-proxy` command in a process of its own.

    Args:
        name: what it is called in messages.
        arguments: of the command line.
        log: file for its standard error.
        api_key: its `upstream.api_key`, or None.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, log: Path, api_key: str | None = None
    ) -> None:
        self.name = name
        self.log = log
        environment = environment_without_settings()
        if api_key is not None:
            environment["TINKEX_PROXY_UPSTREAM__API_KEY"] = api_key
        # A descriptor of our own, because a file's buffer would hide lines from `select`.
        self._said, says = os.pipe()
        with log.open("wb") as errors, os.fdopen(says, "wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "tinkex_proxy", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=environment,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def url(self, *, timeout_s: float = START_TIMEOUT_S) -> str:
        """Wait until it listens; gives its URL.

        Raises:
            CommandError: it died, or did not get there in time.
        """
        said = ""
        until = time.monotonic() + timeout_s
        while (left := until - time.monotonic()) > 0 and select.select([self._said], [], [], left)[
            0
        ]:
            more = os.read(self._said, 4096)
            if not more:
                raise self.death()
            said += more.decode(errors="replace")
            line = said.partition(READY)[2]
            if "\n" in line:
                return line.split()[0]
        raise CommandError(f"the {self.name} was not ready after {timeout_s:g} s", status=FAILED)

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def death(self) -> CommandError:
        """What to say when it has died: its status and its last words."""
        status = self._process.wait()
        words = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        return CommandError(f"the {self.name} ended with status {status}:\n{words}", status=FAILED)

    def stop(self) -> None:
        """End it: asked first, then made to."""
        if self.is_alive():
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._said)


class Family:
    """The children of one demo: a death is an error at once, and none outlives the demo.

    While it is open it owns the process's signals. Each raises where the demo happens to be: so the
    demo waits where that is harmless, for calls too (`apart.py`).
    """

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._before: list[tuple[signal.Signals, _Handler]] = []

    def __enter__(self) -> Self:
        self._handle(signal.SIGCHLD, self._on_death)
        # A shell starts background jobs with SIGINT ignored; Ctrl-C is how this command is ended.
        for number in _ENDING:
            self._handle(number, self._on_end)
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not leave a child behind.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(self._children):
            child.stop()
        for number, handler in self._before:
            signal.signal(number, handler)

    def start(self, child: Child) -> Child:
        """Take a child in."""
        self._children.append(child)
        return child

    def _handle(self, number: signal.Signals, handler: Callable[[int, object], None]) -> None:
        self._before.append((number, signal.signal(number, handler)))

    def _on_death(self, _: int, __: object) -> None:
        for child in self._children:
            if not child.is_alive():
                raise child.death()

    def _on_end(self, number: int, _: object) -> None:
        # A terminal sends Ctrl-C to the children too: that they obey is no error.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)
