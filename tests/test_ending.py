"""The end of the real process, seen by its callers: an answer to everything, and never a reset."""

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
import pytest

from tests.processes import (
    ROOT,
    Process,
    a_call,
    a_model,
    client_of,
    lane,
    processes,
    silenced,
    until,
)

LARGE = 64 * 1024 * 1024 - 4096  # just within server.max_body_bytes


@pytest.fixture
def started() -> Iterator[object]:
    with processes() as start:
        yield start


def serve(started, upstream: Process, *options: str, **environment: str) -> Process:
    command = ("serve", "--port", "0", "--upstream.base-url", upstream.url)
    return started(*command, *options, **environment)


class Wire:
    """One connection on which requests go one after another."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        self.stream = self.socket.makefile("rb")

    def send(self, method: str, path: str, body: bytes = b"", *, announced: int = 0) -> None:
        size = announced or len(body)
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
        self.socket.sendall(head.encode() + body)

    def answer(self) -> tuple[int, bool, bytes]:
        """Status, whether the server says that this is the last answer, and the body.

        Raises:
            EOFError: the connection ended before the first byte.
            ConnectionError: it was reset.
        """
        first = self.stream.readline()
        if not first:
            raise EOFError
        headers = {}
        while (line := self.stream.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name] = value
        body = self.stream.read(int(headers["content-length"]))
        return int(first.split()[1]), headers.get("connection") == "close", body

    def is_ended(self) -> bool:
        return self.stream.read(1) == b""

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


@dataclass
class Hammer:
    """A caller that makes one call after another on kept connections, and obeys `close`."""

    url: str
    calls: list[tuple[str, str, bytes]]
    began: threading.Event = field(default_factory=threading.Event)
    statuses: list[int] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)

    def strike(self) -> None:
        """Until nobody listens any more."""
        while True:
            try:
                wire = Wire(self.url)
            except ConnectionError:
                return  # refused; or reset, by a listener that closes while it is connected to
            with contextlib.closing(wire):
                if not self._strike_on(wire):
                    return

    def _strike_on(self, wire: Wire) -> bool:
        last, answered = False, 0
        while not last:
            call = self.calls[len(self.statuses) % len(self.calls)]
            try:
                wire.send(*call)
                status, last, _ = wire.answer()
            except (EOFError, ConnectionError) as cut:
                if answered or isinstance(cut, EOFError):
                    self.wrongs.append(f"{call[:2]} after {answered} answers: {cut!r}")
                return False  # a listener that closes may reset whom nobody has taken yet
            answered += 1
            self.statuses.append(status)
            self.began.set()
        return True


def test_no_request_on_a_kept_connection_goes_unanswered_through_a_whole_sigterm(started) -> None:
    upstream = started("sandbox", "--port", "0")
    proxy = serve(started, upstream, "--server.drain-pause-ms", "300")
    with client_of(proxy.url) as client:
        training = ("POST", "/v1/forward_backward", a_call(a_model(client)))
    calls = [training, ("GET", "/health/live", b""), ("GET", "/v1/models", b"")]
    hammers = [Hammer(proxy.url, calls[n % 3 :] + calls[: n % 3]) for n in range(6)]
    idle = [Wire(proxy.url) for _ in range(4)]
    for wire in idle[:2]:
        wire.send("GET", "/health/live")
        assert wire.answer()[:2] == (200, False)
    with ThreadPoolExecutor(6) as pool:
        striking = [pool.submit(hammer.strike) for hammer in hammers]
        for hammer in hammers:
            assert hammer.began.wait(30)
        proxy.popen.terminate()
        for strike in striking:
            strike.result()
    # Nobody listens any more; who was connected all the time has a last wait, and is heard.
    for wire in idle[::2]:
        wire.send(*training)
        status, last, problem = wire.answer()
        assert (status, last, json.loads(problem)["code"]) == (503, True, "draining")
    for wire in idle:
        assert wire.is_ended()
        wire.close()
    assert proxy.ended() == 0
    assert [hammer.wrongs for hammer in hammers] == [[]] * 6
    seen = {status for hammer in hammers for status in hammer.statuses}
    assert seen <= {200, 503}
    assert all(hammer.statuses.count(200) > 0 for hammer in hammers)


def test_during_the_pause_calls_are_taken_and_the_connections_closed(started) -> None:
    """Readiness sends new callers elsewhere; who comes all the same is served."""
    upstream = started("sandbox", "--port", "0")
    proxy = serve(started, upstream, "--server.drain-pause-ms", "600000")
    with client_of(proxy.url) as client:
        call = a_call(a_model(client))
        proxy.popen.terminate()
        until(lambda: client.get("/health/ready").json().get("reason") == "draining")
        assert client.get("/health/live").status_code == 200
        answer = client.post("/v1/forward_backward", content=call)
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        progress = client.get("/drain").json()
    assert (progress["state"], progress["asked_by"]) == ("pausing", "SIGTERM")
    assert 0 < progress["left_s"] <= 600
    proxy.popen.terminate()  # ends the pause, and all else, at once
    assert proxy.ended() == 0


def test_two_signals_at_once_end_it_at_once(started) -> None:
    upstream = started("sandbox", "--port", "0")
    proxy = serve(started, upstream, "--server.drain-pause-ms", "600000")
    proxy.popen.send_signal(signal.SIGTERM)
    proxy.popen.send_signal(signal.SIGINT)
    assert proxy.ended() == 0
    assert "Traceback" not in proxy.said


def test_an_operator_ends_it_as_a_signal_does(started) -> None:
    """202 with what still runs; asked again, how far it is; new calls are refused meanwhile."""
    upstream = started("sandbox", "--port", "0")
    proxy = serve(started, upstream)
    with client_of(proxy.url) as client:
        call = a_call(a_model(client))
        assert client.get("/drain").json() == {
            "state": "serving",
            "asked_by": None,
            "left_s": None,
            "calls_in_flight": 0,
            "requests_open": 0,
            "polls_held": 0,
            "open_batches": 0,
            "awaiting_results": 0,
        }
        foreign = client.post("/drain", headers={"origin": "http://evil.example"})
        assert foreign.status_code == 403
        with silenced(upstream):
            wire = Wire(proxy.url)
            wire.send("POST", "/v1/forward_backward", call)
            until(lambda: lane(client)["on_wire_seq"])
            asked = client.post("/drain")
            assert (asked.status_code, asked.headers["location"]) == (202, "/drain")
            assert asked.json()["calls_in_flight"] == 1
            until(lambda: client.post("/drain").json()["state"] == "draining")
            refused = client.post("/v1/forward_backward", content=call)
            assert (refused.status_code, refused.json()["code"]) == (503, "draining")
            assert refused.headers["connection"] == "close"
        status, last, _ = wire.answer()
        assert (status, last) == (200, True)
        wire.close()
    assert proxy.ended() == 0


def test_an_upload_under_way_is_taken_in_and_a_new_one_is_told_no(started) -> None:
    upstream = started("sandbox", "--port", "0")
    proxy = serve(started, upstream)
    with client_of(proxy.url) as client:
        model_id = a_model(client)
        body = a_call(model_id) + b" " * (LARGE - len(a_call(model_id)))
        early, late = Wire(proxy.url), Wire(proxy.url)
        half = len(body) // 2
        early.send("POST", "/v1/forward_backward", body[:half], announced=len(body))
        until(lambda: client.get("/drain").json()["requests_open"] == 1)
        proxy.popen.terminate()
        until(lambda: client.get("/drain").json()["state"] == "draining")
        late.send("POST", "/v1/forward_backward", body)
        assert late.answer()[:2] == (503, True)
        assert late.is_ended()
        progress = client.get("/drain").json()
        assert (progress["state"], progress["requests_open"]) == ("draining", 1), "not over yet"
        early.socket.sendall(body[half:])
        assert early.answer()[:2] == (200, True)
        early.close()
        late.close()
    assert proxy.ended() == 0


def test_an_upload_that_outlasts_the_grace_is_told_that_nothing_was_sent(started) -> None:
    upstream = started("sandbox", "--port", "0")
    proxy = serve(started, upstream, "--calls.shutdown-grace-s", "0.1")
    with client_of(proxy.url) as client:
        wire = Wire(proxy.url)
        wire.send("POST", "/v1/forward_backward", a_call(a_model(client)), announced=LARGE)
        until(lambda: client.get("/drain").json()["requests_open"] == 1)
    proxy.popen.terminate()
    status, last, problem = wire.answer()
    wire.close()
    assert (status, last, json.loads(problem)["code"]) == (503, True, "draining")
    assert proxy.ended() == 0
    assert "Traceback" not in proxy.said


def test_a_poll_that_is_passed_on_is_told_to_come_again(started) -> None:
    """The upstream may hold it for minutes, and keeps the result for who asks next."""
    upstream = started("sandbox", "--port", "0", "--tick-ms", "60000")
    proxy = serve(started, upstream, "--sdk.mode", "transparent")
    with client_of(proxy.url) as client:
        session = client.post("/api/v1/create_session", json=SESSION).json()
        making = {"session_id": session["session_id"], "model_seq_id": 0, **MODEL}
        promise = client.post("/api/v1/create_model", json=making).json()
        with ThreadPoolExecutor() as pool:
            asked = {"request_id": promise["request_id"]}
            poll = pool.submit(client.post, "/api/v1/retrieve_future", json=asked)
            until(lambda: client.get("/drain").json()["polls_held"] == 1)
            proxy.popen.terminate()
            answer = poll.result()
    assert (answer.status_code, answer.json()["type"]) == (408, "try_again")
    assert proxy.ended() == 0


SESSION = {"tags": [], "user_metadata": {}, "sdk_version": "0.38.0", "type": "create_session"}
MODEL = {"base_model": "sandbox/tiny-1", "lora_config": {"rank": 4}, "type": "create_model"}


def test_a_configuration_is_reloaded_while_it_drains(started, tmp_path) -> None:
    """A SIGHUP at the end is no signal to end sooner."""
    file = tmp_path / "proxy.toml"
    file.write_text('[log]\nlevel = "info"\n')
    upstream = started("sandbox", "--port", "0")
    proxy = serve(started, upstream, "--config", str(file))
    with client_of(proxy.url) as client:
        call = a_call(a_model(client))
        with silenced(upstream):
            wire = Wire(proxy.url)
            wire.send("POST", "/v1/forward_backward", call)
            until(lambda: lane(client)["on_wire_seq"])
            proxy.popen.terminate()
            until(lambda: client.get("/drain").json()["state"] == "draining")
            file.write_text('[log]\nlevel = "debug"\n')
            proxy.popen.send_signal(signal.SIGHUP)
            until(lambda: client.get("/config").json()["log"]["level"] == "debug")
        assert wire.answer()[:2] == (200, True)
        wire.close()
    assert proxy.ended() == 0


@contextlib.contextmanager
def on_a_terminal(
    upstream: Process, *before: str
) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """Start a proxy as the only program of a terminal; gives also the terminal and its URL."""
    ours, theirs = pty.openpty()
    code = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    command = [sys.executable, "-m", "tinkex_proxy", "serve", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", f"{code} os.execvp(sys.argv[1], sys.argv[1:])", *before, *command],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        cwd=ROOT,
        env={**os.environ, "TINKEX_PROXY_UPSTREAM__BASE_URL": upstream.url},
    )
    os.close(theirs)
    url = process.stdout.readline().partition("listening on ")[2].split()[0]
    try:
        yield process, ours, url
    finally:
        process.kill()
        process.communicate()


def test_a_terminal_that_is_closed_takes_the_proxy_with_it(started) -> None:
    """It sends SIGHUP too, and nobody is there any more who could want a reload."""
    upstream = started("sandbox", "--port", "0")
    with on_a_terminal(upstream) as (process, terminal, url):
        process.send_signal(signal.SIGHUP)
        with client_of(url) as client:
            assert client.get("/drain").json()["state"] == "serving"
        os.close(terminal)
        assert process.wait(30) == 0


def test_under_nohup_it_outlives_its_terminal(started) -> None:
    upstream = started("sandbox", "--port", "0")
    with on_a_terminal(upstream, "nohup") as (process, terminal, url):
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        with client_of(url) as client:
            assert client.get("/drain").json()["state"] == "serving"
        process.terminate()
        assert process.wait(30) == 0


def test_an_upstream_that_comes_late_is_waited_for_and_found(started) -> None:
    """Not fatal: alive, not ready and why; calls are told when to come again; then all is well."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    proxy = started(
        *("serve", "--port", "0", "--upstream.base-url", f"http://127.0.0.1:{port}"),
        *("--circuit-breaker.failure-threshold", "2", "--circuit-breaker.timeout-ms", "500"),
    )
    with client_of(proxy.url) as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/startup").status_code == 200
        until(lambda: "not been asked" not in client.get("/health/ready").text)
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert "the upstream does not answer" in ready.json()["reason"]

        def create() -> httpx.Response:
            return client.post("/v1/models", json={"base_model": "sandbox/tiny-1"})

        refused = [create() for _ in range(4)]
        codes = {answer.json()["code"] for answer in refused}
        assert codes <= {"upstream_unreachable", "circuit_open"}
        assert "circuit_open" in codes
        for answer in refused:
            assert answer.json()["retryable"] is True
            if answer.json()["code"] == "circuit_open":
                assert int(answer.headers["retry-after"]) >= 1
        started("sandbox", "--port", str(port))
        until(lambda: client.get("/health/ready").status_code == 200)
        until(lambda: create().status_code == 200)
