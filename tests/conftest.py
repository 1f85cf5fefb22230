"""What all tests share.

Hypothesis profiles: `fast` here and in CI, `deep` for a long look (HYPOTHESIS_PROFILE=deep), `few`,
always the same, for each mutant of `make mutants`. And the program itself, as processes: a sandbox
and a proxy in front of it.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "fast", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", parent=settings.get_profile("fast"), max_examples=2000)
settings.register_profile(
    "few", parent=settings.get_profile("fast"), max_examples=30, derandomize=True, database=None
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _state_of_its_own() -> Iterator[None]:
    """No test may find, or leave, a journal where the user's proxy has its own."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TINKEX_PROXY_STATE_DIR"] = folder
        yield
        del os.environ["TINKEX_PROXY_STATE_DIR"]


def started(*command: str) -> tuple[subprocess.Popen[str], str]:
    """Start a command of ours; give it and the URL that its first line says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tinkex_proxy", *command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    url = re.search(r"listening on (http://\S+)", line)
    assert url is not None, line
    return process, url[1]


@pytest.fixture(scope="module")
def proxy_url() -> Iterator[str]:
    """A sandbox and a proxy in front of it, as a user would start them; gives the proxy's URL."""
    sandbox, upstream = started("sandbox", "--port", "0")
    proxy, url = started("serve", "--port", "0", "--upstream.base-url", upstream)
    try:
        yield url
    finally:
        for process in (proxy, sandbox):
            process.terminate()
            process.communicate(timeout=30)


@dataclass
class Collector:
    """An OTLP collector that runs."""

    url: str

    def spans(self) -> list[dict[str, object]]:
        """What has come."""
        return self.taken()["spans"]

    def taken(self) -> dict[str, list[object]]:
        """What has come, with headers and bodies."""
        return httpx.get(f"{self.url}/spans", trust_env=False).json()

    def turn(self, mode: str) -> None:
        """`take`, `refuse` or `hang`."""
        httpx.post(f"{self.url}/mode/{mode}", trust_env=False)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """An OTLP collector, as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "otlp_receiver.py")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield Collector(f"http://127.0.0.1:{process.stdout.readline().strip()}")
    process.kill()
    process.communicate()
