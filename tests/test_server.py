"""The real process: it starts, answers, drains on the first signal and stops on the second."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]


class Process:
    """A command of ours and the URL that its first line says."""

    def __init__(self, *command: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tinkex_proxy", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.popen.stdout is not None
        self.said = self.popen.stdout.readline()
        self.url = self.said.partition("listening on ")[2].split()[0]

    def ended(self) -> int:
        self.popen.communicate(timeout=30)
        return self.popen.returncode

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            self.popen.communicate(timeout=30)


@pytest.fixture
def started() -> Iterator[object]:
    running: list[Process] = []

    def start(*command: str) -> Process:
        running.append(Process(*command))
        return running[-1]

    yield start
    for process in reversed(running):
        process.stop()


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, trust_env=False, timeout=30)


def a_model(client: httpx.Client) -> str:
    made = client.post("/v1/models", json={"base_model": "sandbox/tiny-1", "rank": 4})
    return str(made.json()["model_id"])


def a_call(model_id: str) -> bytes:
    body = {"model_id": model_id, "data": [{"tokens": [1], "targets": [2]}]}
    return json.dumps(body).encode()


def test_the_first_signal_lets_a_call_in_flight_finish(started) -> None:
    upstream = started("sandbox", "--port", "0", "--tick-ms", "400")
    proxy = started("serve", "--port", "0", "--upstream.base-url", upstream.url)
    answers: list[httpx.Response] = []
    with client_of(proxy.url) as client, client_of(proxy.url) as other:
        call = a_call(a_model(client))
        sender = threading.Thread(
            target=lambda: answers.append(client.post("/v1/forward_backward", content=call))
        )
        sender.start()
        while not other.get("/lanes").json()["lanes"][0]["awaiting_results"]:
            pass
        proxy.popen.send_signal(signal.SIGTERM)
        assert proxy.ended() == 0
        sender.join()
    assert answers[0].json()["loss"] > 0


def test_a_second_signal_stops_at_once(started) -> None:
    """The upstream is silent: after the first signal the proxy waits for it, after two not."""
    upstream = started("sandbox", "--port", "0")
    proxy = started("serve", "--port", "0", "--upstream.base-url", upstream.url)
    with client_of(proxy.url) as client:
        call = a_call(a_model(client))
        os.kill(upstream.popen.pid, signal.SIGSTOP)
        try:
            host, _, port = proxy.url.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port))) as caller:
                head = "POST /v1/forward_backward HTTP/1.1\r\nHost: localhost\r\n"
                caller.sendall(f"{head}Content-Length: {len(call)}\r\n\r\n".encode() + call)
                while client.get("/lanes").json()["lanes"][0]["on_wire_seq"] is None:
                    pass
                proxy.popen.send_signal(signal.SIGTERM)
                while client.get("/health/ready").json().get("reason") != "draining":
                    pass
                proxy.popen.send_signal(signal.SIGTERM)
                assert proxy.ended() == 0
        finally:
            os.kill(upstream.popen.pid, signal.SIGCONT)


def test_a_unix_socket_instead_of_a_port(started, tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    upstream = started("sandbox", "--port", "0")
    proxy = started("serve", "--uds", str(path), "--upstream.base-url", upstream.url)
    assert proxy.url == f"unix:{path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://localhost") as client:
        assert client.get("/health/live").json() == {"status": "ok"}


def test_a_port_that_is_taken_is_told_with_its_owner(started) -> None:
    upstream = started("sandbox", "--port", "0")
    port = upstream.url.rpartition(":")[2]
    ran = subprocess.run(
        [sys.executable, "-m", "tinkex_proxy", "serve", "--port", port],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TINKER_API_KEY": "tml-x"},
        cwd=ROOT,
    )
    assert ran.returncode not in {0, 78}
    assert f"port {port} is in use by" in ran.stderr
    assert str(upstream.popen.pid) in ran.stderr
