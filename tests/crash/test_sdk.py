"""The official SDK through the deaths of the proxy: it notices nothing but time."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import Stack, stack

STEPS = 5


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("crash"), sandbox=("--tick-ms", "2")) as both:
        yield both


def program(url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("sdk_program.py"), url, str(STEPS)],
        stdout=subprocess.PIPE,
        env={**os.environ, "TINKER_API_KEY": "tml-sandbox"},
        text=True,
    )


def ending(running: Stack, process: subprocess.Popen[str]) -> tuple[object, object, object]:
    """Losses, steps and weights of the program's model."""
    with process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    told = json.loads(said)
    seen = running.inspect(told["model_id"])
    return told["losses"], seen["steps"], seen["weights_digest"]


@pytest.fixture(scope="module")
def undisturbed(running: Stack) -> tuple[object, object, object]:
    return ending(running, program(running.proxy.url))


@pytest.mark.parametrize(
    ("step", "first", "second"),
    [
        ("answered", 6, 4),
        pytest.param("sent", 5, 3, marks=pytest.mark.long),
        pytest.param("split", 4, 3, marks=pytest.mark.long),
    ],
)
def test_its_run_ends_as_if_nothing_had_happened(
    running: Stack, undisturbed: tuple[object, object, object], step: str, first: int, second: int
) -> None:
    proxy = running.proxy
    proxy.stop()
    proxy.program = ("tests.crash.doomed", step, str(first))
    proxy.start()
    training = program(proxy.url)
    assert proxy.died() == -signal.SIGKILL
    proxy.program = ("tests.crash.doomed", step, str(second))
    proxy.start()
    assert proxy.died() == -signal.SIGKILL
    proxy.program = ("tinkex_proxy",)
    proxy.start()
    assert ending(running, training) == undisturbed
