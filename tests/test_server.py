"""The real process: it starts, answers, drains on the first signal and stops on the second."""

import contextlib
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from tests.processes import (
    ROOT,
    Caller,
    Process,
    a_call,
    a_model,
    client_of,
    lane,
    processes,
    silenced,
    until,
)
from tinkex_proxy.config import Settings
from tinkex_proxy.server import _pause_s


@pytest.fixture
def started() -> Iterator[object]:
    with processes() as start:
        yield start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_a_call_in_flight_finish(started, number: signal.Signals) -> None:
    upstream = started("sandbox", "--port", "0", "--tick-ms", "400")
    proxy = started("serve", "--port", "0", "--upstream.base-url", upstream.url)
    with client_of(proxy.url) as client:
        caller = Caller(proxy.url, a_call(a_model(client)))
        until(lambda: lane(client)["awaiting_results"])
        proxy.popen.send_signal(number)
        status, answer = caller.answer()
    assert status == "HTTP/1.1 200 OK"
    assert answer["loss"] > 0
    assert proxy.ended() == 0


def test_a_second_signal_stops_at_once(started) -> None:
    """The upstream is silent: after the first signal the proxy waits for it, after two not."""
    upstream = started("sandbox", "--port", "0")
    proxy = started("serve", "--port", "0", "--upstream.base-url", upstream.url)
    with client_of(proxy.url) as client:
        call = a_call(a_model(client))
        with silenced(upstream):
            caller = Caller(proxy.url, call)
            until(lambda: lane(client)["on_wire_seq"])
            proxy.popen.send_signal(signal.SIGTERM)
            until(lambda: client.get("/health/ready").json().get("reason") == "draining")
            assert proxy.popen.poll() is None
            proxy.popen.send_signal(signal.SIGTERM)
            assert proxy.ended() == 0
            caller.socket.close()


def test_a_call_that_outlasts_the_grace_is_told_that_it_may_have_run(started) -> None:
    upstream = started("sandbox", "--port", "0")
    options = ("--upstream.base-url", upstream.url, "--calls.shutdown-grace-s", "0.2")
    proxy = started("serve", "--port", "0", *options)
    with client_of(proxy.url) as client:
        call = a_call(a_model(client))
        with silenced(upstream):
            caller = Caller(proxy.url, call)
            until(lambda: lane(client)["on_wire_seq"])
            proxy.popen.send_signal(signal.SIGTERM)
            status, problem = caller.answer()
            assert proxy.ended() == 0
    assert (status, problem["code"]) == ("HTTP/1.1 504 Gateway Timeout", "outcome_unknown")
    assert "Exception" not in proxy.said


def test_no_key_leaves_but_to_the_upstream(started) -> None:
    """Ours and a caller's go through all that can happen, at the loudest level of logging."""
    ours, theirs = "tml-canary-ours", "tml-canary-theirs"
    upstream = started("sandbox", "--port", "0", "--api-key", ours)
    proxy = started(
        *("serve", "--port", "0", "--upstream.base-url", upstream.url),
        *("--log.level", "debug", "--circuit-breaker.failure-threshold", "2"),
        *("--metrics.snapshot-interval-ms", "50"),
        TINKEX_PROXY_UPSTREAM__API_KEY=ours,
    )
    calls = [
        ("GET", "/v1/capabilities", b""),
        ("POST", "/v1/models", b'{"base_model": "sandbox/tiny-1"}'),
        ("POST", "/v1/sample", b'{"base_model": "sandbox/tiny-1", "prompt": [1]}'),
        ("POST", "/v1/forward_backward", b'{"model_id": }'),
        ("GET", "/v1/futures/none", b""),
    ]
    seen = []
    with client_of(proxy.url) as client:

        def everything(headers: dict[str, str]) -> list[int]:
            answers = [client.request(m, p, content=c, headers=headers) for m, p, c in calls]
            for path, methods in client.get("/openapi.json").json()["paths"].items():
                if path.endswith("/events"):  # it has no end
                    with client.stream("GET", path, headers={"last-event-id": ""}) as stream:
                        seen.append(next(stream.iter_text()))
                elif "get" in methods and "{" not in path:
                    answers.append(client.get(path))
            seen.extend(f"{answer.headers} {answer.text}" for answer in answers)
            return [answer.status_code for answer in answers[:3]]

        assert client.post("/v1/forward_backward", content=a_call(a_model(client))).is_success
        assert everything({}) == [200, 200, 200]
        assert everything({"x-api-key": theirs}) == [401, 401, 401]
        upstream.stop()
        assert set(everything({})) <= {502, 503}
        assert set(everything({"authorization": f"Bearer {theirs}"})) <= {502, 503}
    proxy.popen.terminate()
    assert proxy.ended() == 0
    assert "batch left" in proxy.said
    assert "circuit breaker moved" in proxy.said
    assert any('"api_key":"**' in text.replace(" ", "") for text in seen), "nothing was masked"
    for text in (*seen, proxy.said):
        assert ours not in text
        assert theirs not in text


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


def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be() -> None:
    """Each call held takes two connections, and 2,000 samples at once are nothing unusual."""
    command = (
        "import resource, sys; from tinkex_proxy.server import _allow_many_files as f;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, int(sys.argv[1]))); f(); f();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    for hard in ("256", "5000"):
        said = subprocess.run(
            [sys.executable, "-c", command, hard], capture_output=True, text=True, check=True
        ).stdout
        assert said == f"({hard}, {hard})\n"


def test_a_poll_that_is_held_does_not_outlast_the_grace(started) -> None:
    """An SDK's call that waits for one before it never ends; its poll is told to come again."""
    upstream = started("sandbox", "--port", "0")
    proxy = started(
        "serve",
        "--port",
        "0",
        "--upstream.base-url",
        upstream.url,
        "--calls.shutdown-grace-s",
        "1",
    )
    with client_of(proxy.url) as client:
        body = {"model_id": a_model(client), "seq_id": 2, "type": "optim_step"}
        sent = client.post("/api/v1/optim_step", json=body).json()
        with ThreadPoolExecutor() as pool:
            poll = pool.submit(client.post, "/api/v1/retrieve_future", json=sent)
            while client.get("/lanes").json()["lanes"][0]["held_back"] == 0 or not poll.running():
                pass
            proxy.popen.terminate()
            assert poll.result().status_code == 408
    assert proxy.ended() == 0


def resident_bytes(process: Process) -> int:
    """What a process holds in memory."""
    return int(psutil.Process(process.popen.pid).memory_info().rss)


class Attacker:
    """A connection that announces the largest body there may be."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        head = "POST /v1/forward_backward HTTP/1.1\r\nHost: localhost\r\n"
        self.socket.sendall(f"{head}Content-Length: {64 * 1024 * 1024}\r\n\r\n".encode())

    def status(self) -> bytes:
        """The status line that it gets."""
        return self.socket.recv(64 * 1024).partition(b"\r\n")[0]


def test_five_hundred_bodies_of_64_mib_do_not_fill_the_memory(started) -> None:
    """Those that do not fit are told so at once, whatever they send; a call in flight finishes."""
    upstream = started("sandbox", "--port", "0")
    proxy = started("serve", "--port", "0", "--upstream.base-url", upstream.url)
    with client_of(proxy.url) as client, contextlib.ExitStack() as sockets:
        call = a_call(a_model(client))
        with silenced(upstream):
            caller = Caller(proxy.url, call)
            until(lambda: lane(client)["on_wire_seq"])
            before = resident_bytes(proxy)
            attackers = [Attacker(proxy.url) for _ in range(500)]
            for attacker in attackers:
                sockets.enter_context(attacker.socket)
            refused: list[Attacker] = []
            while len(refused) < 497:  # three fit beside the call
                silent = [attacker for attacker in attackers if attacker not in refused]
                told = select.select([attacker.socket for attacker in silent], [], [], 30)[0]
                assert told, "nobody is told anything"
                refused += [attacker for attacker in silent if attacker.socket in told]
            assert {a.status() for a in refused} == {b"HTTP/1.1 503 Service Unavailable"}
            for attacker in refused:  # and sends all the same
                attacker.socket.sendall(b" " * 1024 * 1024)
            shown = client.get("/lanes").json()["admission"]
            assert 3 * 64 * 1024 * 1024 < shown["bytes_held"] <= shown["max_bytes"]
            assert resident_bytes(proxy) - before < 64 * 1024 * 1024
        assert caller.answer()[0] == "HTTP/1.1 200 OK"
        sockets.close()
        until(lambda: client.get("/lanes").json()["admission"]["bytes_held"] == 0)
        model_id = json.loads(call)["model_id"]
        assert client.post("/v1/optim_step", json={"model_id": model_id}).status_code == 200
    assert upstream.popen.poll() is None


def test_a_signal_reloads_and_a_bad_file_changes_nothing(started, tmp_path: Path) -> None:
    """The log says what came of it; the process goes on either way."""
    file = tmp_path / "proxy.toml"
    file.write_text("[batching]\nwindow_ms = 5\n")
    upstream = started("sandbox", "--port", "0")
    options = ("--upstream.base-url", upstream.url, "--config", str(file))
    proxy = started("serve", "--port", "0", *options)
    with client_of(proxy.url) as client:

        def window_ms() -> float:
            return client.get("/config").json()["batching"]["window_ms"]

        file.write_text("[batching]\nwindow_ms = 20\n[metrics]\nenabled = false\n")
        proxy.popen.send_signal(signal.SIGHUP)
        until(lambda: window_ms() == 20)
        file.write_text("[batching]\nwindow_ms = 30\nwindow_s = 1\n")
        proxy.popen.send_signal(signal.SIGHUP)
        assert client.post("/config/reload").status_code == 422
        assert window_ms() == 20
        assert client.get("/metrics").status_code == 200
        file.write_text('[log]\nlevel = "error"\n')
        proxy.popen.send_signal(signal.SIGHUP)
        until(lambda: window_ms() == 5)
    proxy.popen.terminate()
    assert proxy.ended() == 0
    assert (
        "changed batching.window_ms from 5.0 to 20.0; needs a restart: metrics.enabled"
        in proxy.said
    )
    assert "was not reloaded, all stays: unknown name batching.window_s" in proxy.said
    assert "changed batching.window_ms from 20.0 to 5.0" not in proxy.said, (
        "an info, at level error"
    )


@pytest.mark.parametrize(
    ("options", "pause_s"),
    [
        ({}, 0),
        ({"server.host": "localhost"}, 0),
        ({"server.host": "::1"}, 0),
        ({"server.host": "0.0.0.0"}, 5),
        ({"server.host": "box"}, 5),
        ({"server.host": "0.0.0.0", "server.uds": "/run/p.sock"}, 0),
        ({"server.drain_pause_ms": 1500}, 1.5),
        ({"server.host": "0.0.0.0", "server.drain_pause_ms": 0}, 0),
    ],
)
def test_the_pause_is_for_those_who_have_a_load_balancer_before_them(options, pause_s) -> None:
    assert _pause_s(Settings.load(options)) == pause_s
