"""Start a server as a child process, know when it is ready, show its end of log, end all of it.

Each child leads a process group of its own: SkyRL starts an engine process, and the end of a test,
good or bad, must take both. A thread reads what the group writes, so that a line of the log can be
waited for instead of slept for, and counted afterwards. The child's standard input is a pipe that
closes when the test process dies, however it dies: a server that minds leaves with it.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
TAIL = 60
STOP_S = 10.0


class Server:
    """A running child process with its address and its log."""

    def __init__(self, name: str, port: int, child: subprocess.Popen[str]) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.child = child
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, name=f"log of {name}")
        self._reader.start()

    def count(self, text: str) -> int:
        """How many lines of the log hold the text."""
        with self._changed:
            return sum(text in line for line in self._lines)

    def tail(self) -> str:
        """The end of the log, for the message of a failure."""
        with self._changed:
            return "".join(self._lines[-TAIL:])

    def wait_for_line(self, text: str, timeout_s: float) -> None:
        """Return when a line with the text was written; fail when the process ends first."""
        with self._changed:
            there = self._changed.wait_for(
                lambda: self._ended or any(text in line for line in self._lines), timeout_s
            )
        if not there or self._ended:
            self._fail(f"did not write {text!r} within {timeout_s:.0f} s")

    def wait_for_answer(self, path: str, timeout_s: float) -> None:
        """Return when GET `path` answers 200; fail when the process ends first."""
        deadline = time.monotonic() + timeout_s
        while self.child.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.TransportError):
                if httpx.get(self.url + path, timeout=5).status_code == httpx.codes.OK:
                    return
            time.sleep(0.05)
        self._fail(f"did not answer GET {path} with 200 within {timeout_s:.0f} s")

    def stop(self) -> None:
        """End the whole group: politely, then for certain."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.child.wait(STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self._reader.join(STOP_S)
        for stream in (self.child.stdin, self.child.stdout):
            if stream:
                stream.close()

    def _read(self) -> None:
        for line in self.child.stdout or ():
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _fail(self, what: str) -> None:
        message = f"{self.name} (exit status {self.child.poll()}) {what}; its log ends:"
        raise AssertionError(f"{message}\n{self.tail()}")


@contextmanager
def running(
    name: str,
    command: Callable[[int], list[str]],
    environment: dict[str, str],
    ready: Callable[[Server], None],
) -> Iterator[Server]:
    """Run a server on a free loopback port for the time of the block."""
    port = free_port()
    child = subprocess.Popen(
        command(port),
        cwd=ROOT,
        env=_clean_environment() | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    server = Server(name, port, child)
    try:
        ready(server)
        yield server
    except BaseException:
        print(f"\n--- {name}: the end of its log\n{server.tail()}---", flush=True)
        raise
    finally:
        server.stop()


def _clean_environment() -> dict[str, str]:
    """Our own environment without the proxy's settings: neither a developer's nor the tests'."""
    return {key: value for key, value in os.environ.items() if not key.startswith("TINKEX_PROXY_")}


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
