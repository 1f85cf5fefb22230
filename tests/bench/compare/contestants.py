"""Who takes part: each a process of its own with one worker, before a sink."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.compare import configs
from tests.bench.compare.calls import LARGE, MODEL, SAMPLE, SMALL, TRAIN, Call
from tests.e2e.environments import GRANIAN, LITELLM, build, of_debian

APPS = Path(__file__).parent / "apps"
ROOT = APPS.parents[3]
NGINX = ("usr/sbin/nginx", "nginx-light")
HAPROXY = ("usr/sbin/haproxy", "haproxy")

# The command that starts one, given a folder of its own, its port and the sink's URL.
Command = Callable[[Path, int, str], list[str]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One who takes part.

    Attributes:
        name: as tables have it.
        command: starts it; None if it is the sink itself that is called.
        small: the call that is made to it, where that is small.
        plain: whether it needs the sink that looks into requests, because it does.
        before: calls that are made once before any other.
        environment: what it is told besides.
    """

    name: str
    command: Command | None
    small: Call = SMALL
    plain: bool = False
    before: tuple[Call, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    def call(self, *, large: bool) -> Call:
        """The call that is made to it."""
        return LARGE if large else self.small


def _nginx(folder: Path, port: int, sink: str, buffer: str = "16k") -> list[str]:
    return [str(of_debian(*NGINX)), *configs.nginx_proxy(folder, port, sink, buffer)]


def _nginx_large(folder: Path, port: int, sink: str) -> list[str]:
    """With what makes it twice as fast with large bodies, and is not what it comes with."""
    return _nginx(folder, port, sink, "256k")


def _haproxy(folder: Path, port: int, sink: str) -> list[str]:
    return [str(of_debian(*HAPROXY)), *configs.haproxy(folder, port, sink)]


def _ours(folder: Path, port: int, sink: str) -> list[str]:
    place = ["--port", str(port), "--upstream.base-url", sink]
    state = ["--journal.state-dir", str(folder)]
    return [sys.executable, "-m", "tinkex_proxy", "serve", *place, *state]


def _transparent(folder: Path, port: int, sink: str) -> list[str]:
    return [*_ours(folder, port, sink), "--sdk.mode", "transparent"]


def _litellm(folder: Path, port: int, sink: str) -> list[str]:
    program = build(LITELLM).with_name("litellm")
    return [str(program), *configs.litellm(folder, port, sink, SMALL.path)]


def _uvicorn(app: str) -> Command:
    def command(_: Path, port: int, sink: str) -> list[str]:
        options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        options += ["--log-level", "warning", "--app-dir", str(APPS), "--port", str(port)]
        return ["env", f"COMPARE_UPSTREAM={sink}", sys.executable, "-m", "uvicorn", *options, app]

    return command


def _granian(app: str) -> Command:
    def command(_: Path, port: int, sink: str) -> list[str]:
        options = ["--interface", "asgi", "--loop", "uvloop", "--http", "1", "--no-ws"]
        options += ["--backlog", "4096", "--log-level", "warning", "--working-dir", str(APPS)]
        program = build(GRANIAN).with_name("granian")
        upstream, ours = f"COMPARE_UPSTREAM={sink}", f"PYTHONPATH={ROOT}"
        return ["env", upstream, ours, str(program), *options, "--port", str(port), app]

    return command


# Our own, by name, because targets speak of them.
OURS, NGINX_NAME, NAIVE, LITELLM_NAME = "ours", "nginx", "FastAPI + httpx", "LiteLLM"
DIRECT, OUR_SAMPLE, OUR_TRAINING = "direct", "ours /v1/sample", "ours /v1/forward_backward"
FLOOR, FLOOR_PROXY = "uvicorn echo", "uvicorn + our client"
DIRECT_PLAIN, NGINX_LARGE = "direct plain", "nginx 256k buffers"

# A developer's machine only: it would refuse to start without a key.
_NO_KEY = (("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true"),)

CONTESTANTS = (
    Contestant(DIRECT, None),
    Contestant(NGINX_NAME, _nginx),
    Contestant(NGINX_LARGE, _nginx_large),
    Contestant("HAProxy", _haproxy),
    Contestant(OURS, _transparent),
    Contestant(OUR_SAMPLE, _ours, SAMPLE, plain=True),
    Contestant(OUR_TRAINING, _ours, TRAIN, plain=True, before=(MODEL,)),
    Contestant(NAIVE, _uvicorn("naive:app")),
    Contestant(LITELLM_NAME, _litellm, environment=_NO_KEY),
    Contestant(FLOOR, _uvicorn("floor:echo")),
    Contestant("granian echo", _granian("floor:echo")),
    Contestant(FLOOR_PROXY, _uvicorn("floor:proxy")),
    Contestant("uvicorn + pyqwest", _uvicorn("floor:reqwest")),
    Contestant("granian + our client", _granian("floor:proxy")),
    Contestant(DIRECT_PLAIN, None, plain=True),
)
BY_NAME = {contestant.name: contestant for contestant in CONTESTANTS}


def environment(contestant: Contestant) -> dict[str, str]:
    """What it is told by variables: no proxy of the machine's is to stand in between."""
    unset = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    return unset | dict(contestant.environment)
