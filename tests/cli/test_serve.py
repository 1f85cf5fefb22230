import os
import signal
import socket
from pathlib import Path

import pytest

from tests.cli.conftest import url_in
from tinkex_proxy import server
from tinkex_proxy.cli import serve
from tinkex_proxy.config import Settings

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
