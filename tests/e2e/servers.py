"""The servers of the end-to-end tests: SkyRL in two generations, the sandbox, and the proxy."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.environments import (
    HERE,
    SKYRL_030,
    SKYRL_040,
    Environment,
    build,
    cache,
    checkpoint,
)
from tests.e2e.processes import Server, running

KEY = "tml-dummy"
TAKEN = 'POST /api/v1/forward_backward HTTP/1.1" 200'  # SkyRL's log of a submit it took
MODES = ("transparent", "lane")
ENGINE_READY_S = 180.0  # measured 7 to 16 s; a busy CI machine is slower
ANSWER_READY_S = 30.0
ENGINE_LINE = "Starting background engine..."


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of SkyRL's server, and whether its engine takes datums one at a time.

    With `micro_batch` 1 every datum is computed in the same shape whatever batch it came in: sums
    of gradients are then the same to the last bit, and a new batch size compiles nothing. With 0
    the engine computes what is pending as one array, as a deployment would.

    With `sdk_compat` it answers newer SDKs as well; without, it is SkyRL as it is.
    """

    environment: Environment
    micro_batch: int
    sdk_compat: bool = False

    @property
    def label(self) -> str:
        """How a test and a table name it."""
        wire = "protobuf" if self.environment is SKYRL_040 else "JSON"
        how = "micro batch 1" if self.micro_batch else "default"
        return f"{self.environment.name} ({wire}), {how}"

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens per datum worth measuring: where the tick decides, and where arithmetic does."""
        return (16, 500) if self.environment is SKYRL_040 else (16,)


PROTOBUF = Generation(SKYRL_040, micro_batch=1, sdk_compat=True)
JSON = Generation(SKYRL_030, micro_batch=1)
GENERATIONS = (PROTOBUF, Generation(SKYRL_040, 0), JSON, Generation(SKYRL_030, 0))


@contextmanager
def skyrl(generation: Generation, state: Path) -> Iterator[Server]:
    """Run a SkyRL server whose engine is ready.

    Readiness is a line of the log: `healthz` answers ten seconds before the engine does.
    """
    interpreter = build(generation.environment)
    base_model = checkpoint()

    def command(port: int) -> list[str]:
        options = ["--base-model", str(base_model), "--port", str(port), "--state", str(state)]
        options += ["--micro-batch", str(generation.micro_batch)]
        options += ["--sdk-compat"] if generation.sdk_compat else []
        return [str(interpreter), str(HERE / "serve_skyrl.py"), *options]

    environment = {
        "HF_HUB_OFFLINE": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache() / f"jax-{generation.environment.folder.name}"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONUNBUFFERED": "1",
    }
    with running(
        generation.label,
        command,
        environment,
        lambda server: server.wait_for_line(ENGINE_LINE, ENGINE_READY_S),
    ) as server:
        yield server


@contextmanager
def proxy(upstream: str, *, mode: str = "lane", coalesce: bool = False) -> Iterator[Server]:
    """Run `tinkex-proxy serve` in front of an upstream; the mode is that of SDK calls."""
    environment = {
        "TINKEX_PROXY_SDK__MODE": mode,
        "TINKEX_PROXY_SDK__COALESCE": str(coalesce).lower(),
        "TINKEX_PROXY_UPSTREAM__BASE_URL": upstream,
        "TINKEX_PROXY_UPSTREAM__API_KEY": KEY,
    }
    with (
        tempfile.TemporaryDirectory() as state,
        running(
            "tinkex-proxy serve",
            lambda port: [sys.executable, "-m", "tinkex_proxy", "serve", "--port", str(port)],
            {**environment, "TINKEX_PROXY_STATE_DIR": state},
            lambda server: server.wait_for_answer("/health/ready", ANSWER_READY_S),
        ) as server,
    ):
        yield server


@contextmanager
def sandbox() -> Iterator[Server]:
    """Run `tinkex-proxy sandbox`."""
    with running(
        "tinkex-proxy sandbox",
        lambda port: [sys.executable, "-m", "tinkex_proxy", "sandbox", "--port", str(port)],
        {},
        lambda server: server.wait_for_answer("/api/v1/healthz", ANSWER_READY_S),
    ) as server:
        yield server
