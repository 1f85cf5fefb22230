"""Commands of ours on a terminal: a pty, and an emulator that knows what its screen shows."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator

import pyte

from tinkex_proxy.config import environment_without_settings

PATIENCE_S = 30


class OnTerminal:
    """A command that runs on a terminal of its own."""

    def __init__(self, *command: str, columns: int, lines: int, **environment: str) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = pty.openpty()
        self.resize(columns, lines)
        inherited = environment_without_settings()
        # The size is the terminal's; a test runner may have put that of its own into these.
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            inherited.pop(name, None)
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tinkex_proxy", *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**inherited, "TERM": "linux", **environment},
            start_new_session=True,
        )
        os.close(theirs)

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self.screen.erase_in_display(2)  # what is still there is no answer to the new size
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if hasattr(self, "popen"):
            os.kill(self.popen.pid, 28)  # SIGWINCH: the terminal is not its controlling one

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    @property
    def colours(self) -> set[str]:
        """What colours there are on the screen."""
        return {cell.fg for line in self.screen.buffer.values() for cell in line.values()}

    def until(self, holds: Callable[[str], object]) -> str:
        """Read what is written until the screen is as wanted; gives it."""
        while not holds(self.text):
            ready, _, _ = select.select([self._ours], [], [], PATIENCE_S)
            assert ready, f"nothing more is written; the screen is\n{self.text}"
            try:
                written = os.read(self._ours, 65536)
            except OSError:  # how Linux says that the other side is closed
                written = b""
            assert written, f"it ended; the screen is\n{self.text}"
            self._stream.feed(written)
        return self.text

    def ended(self) -> int:
        """Its exit status, once it has ended; what it still writes is read, as it would wait."""
        deadline = time.monotonic() + PATIENCE_S
        with contextlib.suppress(OSError):
            while (left := deadline - time.monotonic()) > 0:
                if select.select([self._ours], [], [], left)[0]:
                    self._stream.feed(os.read(self._ours, 65536))
        return self.popen.wait(timeout=PATIENCE_S)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.ended()
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise
        os.close(self._ours)


@contextlib.contextmanager
def on_terminal(
    *command: str, columns: int = 80, lines: int = 24, **environment: str
) -> Iterator[OnTerminal]:
    running = OnTerminal(*command, columns=columns, lines=lines, **environment)
    try:
        yield running
    finally:
        running.close()
