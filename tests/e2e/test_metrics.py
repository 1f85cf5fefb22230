"""What Prometheus' own checker says of a real proxy's metrics, before and after an attack."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.environments import promtool
from tests.faults.harness import Stack, apart, caller, endings, stack
from tests.hostile import attack, keys_of, named_by_callers, series_of

REQUESTS = 100_000
# Each method has met each path several times by then, with a key and without.
WARM_UP = 5_000
# Combinations of closed sets that come with chance or time: a heartbeat, a caller's own end.
RARE = 50


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Stack]:
    with stack(tmp_path) as up:
        yield up


async def scraped(url: str) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
        return (await client.get("/metrics")).text


def check(metrics: str) -> None:
    command = [str(promtool()), "check", "metrics"]
    ran = subprocess.run(command, input=metrics, capture_output=True, text=True, check=False)
    assert not ran.returncode, ran.stdout + ran.stderr
    assert not ran.stdout + ran.stderr


def resident(metrics: str) -> float:
    lines = metrics.splitlines()
    return next(float(ln.split()[1]) for ln in lines if ln.startswith("process_resident_memory"))


async def test_promtool_has_nothing_to_say_of_a_run(running: Stack) -> None:
    """With every kind of series: training, an outage, a breaker that moved."""
    async with caller(running.proxy.url, patience_s=60) as trainer:
        running.faults({"kind": "error", "status": 503, "from_s": 0.5, "for_s": 1})
        endings(await apart(trainer, 5), running)
    metrics = await scraped(running.proxy.url)
    assert 'tinkex_proxy_calls_total{code="ok",operation="optim_step"}' in metrics
    check(metrics)


def test_promtool_can_complain() -> None:
    with pytest.raises(AssertionError, match="_total"):
        check("# HELP a Help.\n# TYPE a counter\na 1\n")


async def test_a_hundred_thousand_hostile_requests_make_no_new_series(running: Stack) -> None:
    url = running.proxy.url
    await attack(url, range(WARM_UP))
    before = await scraped(url)
    assert await attack(url, range(WARM_UP, REQUESTS)) == REQUESTS - WARM_UP
    after = await scraped(url)
    assert named_by_callers(series_of(after)) == []
    assert len(series_of(after) - series_of(before)) <= RARE
    assert len(keys_of(after)) == len(keys_of(before))
    assert "tinkex_proxy_series_refused_total 0.0" in after
    assert resident(after) - resident(before) < 32 * 2**20
    check(after)
