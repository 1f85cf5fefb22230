"""Contestants and sinks as processes, and what they take of the machine."""

import contextlib
import re
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.bench.compare import configs
from tests.bench.compare.calls import Call
from tests.bench.compare.contestants import NGINX, Contestant, environment
from tests.e2e.environments import of_debian
from tests.e2e.processes import Server, running

# LiteLLM on a busy machine takes half a minute.
READY_S = 120.0
# At rest is who takes less than a tenth of a processor, and who does not rest in time is left.
GLANCE_S, AT_REST, SETTLED_S = 0.2, 0.1, 30.0
_PEAK, _RESIDENT = re.compile(r"VmHWM:\s+(\d+) kB"), re.compile(r"VmRSS:\s+(\d+) kB")


@dataclass(frozen=True, slots=True)
class Tree:
    """A process and its children.

    Attributes:
        pid: the process'.
    """

    pid: int

    def _all(self) -> list[psutil.Process]:
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]

    def cpu_s(self) -> float:
        """Seconds of a processor that it has taken."""
        times = [one.cpu_times() for one in self._all()]
        return sum(each.user + each.system for each in times)

    def peak_mib(self) -> float:
        """The most that was resident, of each process by itself."""
        return self._sum(_PEAK)

    def resident_mib(self) -> float:
        """What is resident now."""
        return self._sum(_RESIDENT)

    def _sum(self, line: re.Pattern[str]) -> float:
        texts = [Path(f"/proc/{one.pid}/status").read_text() for one in self._all()]
        return sum(int(found[1]) for text in texts if (found := line.search(text))) / 1024


@dataclass(frozen=True, slots=True)
class Up:
    """A contestant that runs.

    Attributes:
        contestant: which.
        url: where.
        tree: its processes.
    """

    contestant: Contestant
    url: str
    tree: Tree


@dataclass(frozen=True, slots=True)
class Sinks:
    """The URLs of the upstreams, and their processes: one for all who do not look, one for others.

    Attributes:
        blind: answers all the same.
        looking: answers the calls of the Tinker wire.
    """

    blind: Server
    looking: Server

    def of(self, contestant: Contestant) -> Server:
        """The one that a contestant stands before."""
        return self.looking if contestant.plain else self.blind


@contextlib.contextmanager
def sinks(folder: Path, *, large: bool) -> Iterator[Sinks]:
    """Run both. nginx answers before it has read a large body, so those go to a sink of ours."""
    with contextlib.ExitStack() as stack:
        looking = stack.enter_context(sink())
        if large:
            blind = stack.enter_context(sink("--blind"))
        else:
            (place := folder / "sink").mkdir()
            program = str(of_debian(*NGINX))

            def command(port: int) -> list[str]:
                return [program, *configs.nginx_sink(place, port)]

            blind = stack.enter_context(running("the sink", command, {}, _reachable))
        yield Sinks(blind, looking)


@contextlib.contextmanager
def sink(*options: str) -> Iterator[Server]:
    """Run a sink of ours."""

    def command(port: int) -> list[str]:
        return [sys.executable, "-m", "tests.bench.compare.sink", str(port), *options]

    with running("a sink", command, {}, _reachable) as server:
        yield server


@contextlib.contextmanager
def contestants(which: Sequence[Contestant], before: Sinks, folder: Path) -> Iterator[list[Up]]:
    """Run contestants side by side: started together, then waited for."""
    with contextlib.ExitStack() as stack:
        up = []
        for number, one in enumerate(which):
            upstream = before.of(one)
            if one.command is None:
                up.append(Up(one, upstream.url, Tree(upstream.child.pid)))
                continue
            (place := folder / str(number)).mkdir(exist_ok=True)
            up.append(stack.enter_context(contestant(one, upstream.url, place)))
        for each in up:
            ready(each)
        yield up


@contextlib.contextmanager
def contestant(one: Contestant, upstream: str, place: Path) -> Iterator[Up]:
    """Start one; it need not be ready yet."""
    start = one.command
    if start is None:
        raise ValueError(f"{one.name} is no process")

    def command(port: int) -> list[str]:
        return start(place, port, upstream)

    with running(one.name, command, environment(one), lambda _: None) as server:
        yield Up(one, server.url, Tree(server.child.pid))


def ready(up: Up, *, patience_s: float = READY_S) -> None:
    """Make its first calls, the first as often as it takes until it is answered."""
    with httpx.Client(base_url=up.url, trust_env=False, timeout=30) as client:
        for call in (*up.contestant.before, up.contestant.small):
            deadline = time.monotonic() + patience_s
            while not _answered(client, call):
                if time.monotonic() > deadline or not psutil.pid_exists(up.tree.pid):
                    raise RuntimeError(f"{up.contestant.name} does not answer POST {call.path}")
                time.sleep(0.1)


def settle(tree: Tree) -> None:
    """Wait until processes rest: what the last turn left them to do is not to be the next one's."""
    ends = time.monotonic() + SETTLED_S
    before = tree.cpu_s()
    while time.monotonic() < ends:
        time.sleep(GLANCE_S)
        now = tree.cpu_s()
        if now - before < GLANCE_S * AT_REST:
            return
        before = now


def _answered(client: httpx.Client, call: Call) -> bool:
    headers = {"content-type": call.content_type}
    try:
        return client.post(call.path, content=call.body, headers=headers).status_code == 200
    except httpx.TransportError:
        return False


def _reachable(server: Server) -> None:
    server.wait_for_answer("/api/v1/healthz", READY_S)


def more_files() -> None:
    """Let this process and its children have as many connections as they may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
