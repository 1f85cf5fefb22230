"""Commands of ours as processes, and callers on raw sockets."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]


class Process:
    """A command of ours and the URL that its first line says."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "tinkex_proxy", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        assert self.popen.stdout is not None
        self.said = self.popen.stdout.readline()
        self.url = self.said.partition("listening on ")[2].split()[0]

    def ended(self) -> int:
        out, err = self.popen.communicate(timeout=30)
        self.said += out + err
        return self.popen.returncode

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            self.popen.communicate(timeout=30)


@contextlib.contextmanager
def processes() -> Iterator[Callable[..., Process]]:
    """Start commands; those that still run are ended in the end."""
    running: list[Process] = []

    def start(*command: str, **environment: str) -> Process:
        running.append(Process(*command, **environment))
        return running[-1]

    try:
        yield start
    finally:
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


def until(holds: Callable[[], object]) -> None:
    """Ask again and again, each time over a socket; a process that hangs is a failure."""
    assert any(holds() for _ in range(20_000)), "it never came to that"


def lane(client: httpx.Client) -> dict[str, object]:
    return client.get("/lanes").json()["lanes"][0]


class Caller:
    """A socket with one call on it."""

    def __init__(self, url: str, body: bytes) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=30)
        head = "POST /v1/forward_backward HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        self.socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def answer(self) -> tuple[str, dict[str, object]]:
        """Status line and body."""
        with self.socket.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")
        self.socket.close()
        return head.decode().splitlines()[0], json.loads(body)


@contextlib.contextmanager
def silenced(process: Process) -> Iterator[None]:
    """Stop a process without ending it: its sockets stay open and nothing answers."""
    os.kill(process.popen.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.popen.pid, signal.SIGCONT)
