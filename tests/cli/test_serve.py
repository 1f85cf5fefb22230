import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import url_in
from tinkex_proxy import server
from tinkex_proxy.cli import serve
from tinkex_proxy.config import Settings

# What tests and other commands need, or other settings than the defaults, and is heavy.
UNUSED = {
    "httpx",
    "numpy",
    "opentelemetry.sdk",
    "plotext",
    "pydantic.v1.main",  # one that is said to be absent is in the record, what it imports is not
    "pygments",
    "requests",
    "rich.console",
    "tinker",
}
UPSTREAM = ("--upstream.base-url", "http://127.0.0.1:9")


def test_it_says_its_url_when_it_listens_and_ends_well_on_a_signal(start) -> None:
    """One line on standard output, which scripts can wait for; status 0 on SIGTERM."""
    process = start("serve", "--port", "0", *UPSTREAM)
    line = process.stdout.readline()
    url = url_in(line)
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))):
        pass
    assert line.endswith("for http://127.0.0.1:9\n")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_nothing_heavy_is_imported_that_is_not_used(tmp_path: Path) -> None:
    """By Python's own record of imports, of a process that came to listen."""
    command = [sys.executable, "-X", "importtime", "-m", "tinkex_proxy", "serve", "--port", "0"]
    record = tmp_path / "imports"
    with (
        record.open("w") as stderr,
        subprocess.Popen([*command, *UPSTREAM], stdout=subprocess.PIPE, stderr=stderr) as process,
    ):
        assert process.stdout is not None
        assert b"listening on" in process.stdout.readline()
        process.terminate()
    imported = {line.rpartition("|")[2].strip() for line in record.read_text().splitlines()}
    assert {"tinkex_proxy.server", "structlog.dev", "fastapi.routing"} <= imported
    assert UNUSED & imported == set()


def test_a_taken_port_is_told_with_the_process_that_has_it(start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("serve", "--port", str(port), *UPSTREAM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 69
    assert f"port {port} is in use by process {os.getpid()}" in errors
    assert "--port" in errors
    assert "Traceback" not in errors


def test_a_taken_socket_file_is_told_too(start, tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        process = start("serve", "--uds", str(path), *UPSTREAM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 69
    assert f"{path} is in use by process {os.getpid()}" in errors


def test_an_address_that_is_not_ours_is_told_plainly() -> None:
    settings = Settings.load({"server.host": "192.0.2.1"})
    told = serve._listen_problem(settings, OSError(99, "Cannot assign requested address"))
    assert told == "cannot listen on 192.0.2.1:8465: Cannot assign requested address"


def test_a_contradiction_keeps_it_from_starting(run) -> None:
    status, _, errors = run("serve", "--upstream.base-url", "http://[::1]:8465")
    assert status == 78
    assert "call itself" in errors


def test_a_warning_does_not(run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr(server, "serve", lambda settings, **_: seen.append(settings) or 0)
    status, _, errors = run("serve", "--host", "0.0.0.0")
    assert status == 0
    assert seen[0].server.host == "0.0.0.0"
    assert "warning: server.host 0.0.0.0" in errors
