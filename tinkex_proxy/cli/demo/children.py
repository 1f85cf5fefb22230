"""The demo's children: started, waited for, and ended whatever happens to the demo.

A child says on standard output that it is ready and on which URL; the ports are its own choice, so
that none is taken between our looking and its binding. What it logs goes to a file, whose end is
shown when it dies.
"""

import contextlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final, Self

from tinkex_proxy.cli.exits import FAILED, CommandError
from tinkex_proxy.config import environment_without_settings

__all__ = ["Child", "Family", "ended_by_signals"]

START_TIMEOUT_S: Final = 30.0
# Beyond what the proxy needs when nothing is in flight.
STOP_TIMEOUT_S: Final = 10.0
LOG_TAIL_LINES: Final = 15
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP)


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
        with log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "tinkex_proxy", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
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
        said = b""
        until = time.monotonic() + timeout_s
        output = self._process.stdout
        while output is not None and (left := until - time.monotonic()) > 0:
            if not select.select([output], [], [], left)[0]:
                break
            line = output.readline()
            if not line:
                raise self.death()
            said += line
            _, found, rest = line.decode(errors="replace").partition("listening on ")
            if found:
                return rest.split()[0]
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
        if self._process.stdout is not None:
            self._process.stdout.close()


class Family:
    """The children of one demo, ended in the reverse of their order."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not leave a child behind.
        ignored = [(number, signal.signal(number, signal.SIG_IGN)) for number in _STOPPING]
        for child in reversed(self._children):
            child.stop()
        for number, handler in ignored:
            signal.signal(number, handler)

    def start(self, child: Child) -> Child:
        """Take a child in."""
        self._children.append(child)
        return child

    def dead(self) -> Child | None:
        """The first child that has ended, if any has."""
        return next((child for child in self._children if not child.is_alive()), None)


_STOPPING: Final = (signal.SIGINT, *_ENDING)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make the signals that end a process raise, so that what is open gets closed."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = [(number, signal.signal(number, leave)) for number in _ENDING]
    # A shell starts background jobs with SIGINT ignored; Ctrl-C is how this command is ended.
    before.append((signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)))
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
