"""The demo's children: started, waited for, and ended whatever happens to the demo.

A child says on standard output that it is ready and on which URL; the ports are its own choice, so
that none is taken between our looking and its binding. What it logs goes to a file, whose end is
shown when it dies.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tinkex_proxy.cli.exits import FAILED, CommandError
from tinkex_proxy.config import environment_without_settings

__all__ = ["Child"]

# Beyond what the proxy needs when nothing is in flight.
STOP_TIMEOUT_S: Final = 10.0
# The kernel may take its time with a killed process, and the demo need not wait for that.
KILL_TIMEOUT_S: Final = 10.0
LOG_TAIL_LINES: Final = 15
READY: Final = "listening on "


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
        self._words = ""
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

    @property
    def said(self) -> int:
        """Descriptor that can be read when it has said something, or has ended."""
        return self._said

    def url(self) -> str | None:
        """Read more of what it says; gives its URL once it has told it.

        Raises:
            CommandError: it has died.
        """
        more = os.read(self._said, 4096)
        if not more:
            raise self.death()
        self._words += more.decode(errors="replace")
        line = self._words.partition(READY)[2]
        return line.split()[0] if "\n" in line else None

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
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_TIMEOUT_S)
        os.close(self._said)
