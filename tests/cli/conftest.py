import contextlib
import gc
import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from tinkex_proxy.cli import main
from tinkex_proxy.config import environment_without_settings

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TINKER_API_KEY", "TINKER_BASE_URL", "TINKEX_PROXY_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process; gives status, output and errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as left:
            status = int(left.code or 0)
        finally:
            gc.unfreeze()  # what other tests left behind must still be found
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@contextlib.contextmanager
def started(*arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a command line in a process of its own, and end it with the test."""
    state = {"TINKEX_PROXY_STATE_DIR": os.environ["TINKEX_PROXY_STATE_DIR"]}  # not the user's own
    process = subprocess.Popen(
        [sys.executable, "-m", "tinkex_proxy", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment_without_settings(), **state, **environment},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start command lines in processes of their own."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **environment: stack.enter_context(
            started(*arguments, **environment)
        )


def url_in(line: str) -> str:
    """The URL of a ready line."""
    return line.partition("listening on ")[2].split()[0]


@pytest.fixture(scope="session")
def proxy_url() -> Iterator[str]:
    """A proxy of its own whose upstream is not there."""
    with started("serve", "--port", "0", "--upstream.base-url", "http://127.0.0.1:9") as process:
        yield url_in(process.stdout.readline())


class _Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("x-api-key")))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[http.server.HTTPServer]:
    """An upstream that answers `status` to everything and remembers what it saw."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Answering) as server:
        server.status = 200
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
