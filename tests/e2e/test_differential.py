"""The same training on a real server in every way that the proxy offers ends with equal losses.

Directly, passed through, in the model's lane, and by several callers of one model whose calls share
requests: SDK 0.38.0 on SkyRL 0.4.0, the same seeds, the loss of every datum before every step, the
norm of every gradient, and a look at the end.
"""

import math
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.environments import SDK_038
from tests.e2e.processes import Server
from tests.e2e.sdk_runs import run_program
from tests.e2e.servers import PROTOBUF, TAKEN, proxy

CALLERS = 4
STEPS = 6
TOLERANCE = 1e-5
GRAD_NORM = "skyrl.ai/grad_norm"

Json = dict[str, Any]

pytestmark = pytest.mark.parametrize("generation", [PROTOBUF], indirect=True, ids=["SkyRL 0.4.0"])


@dataclass(frozen=True, slots=True)
class Way:
    """A mode of the proxy, and how many callers train the model."""

    mode: str
    coalesce: bool = False
    callers: int = 1


WAYS = {
    "transparent": Way("transparent"),
    "lane": Way("lane"),
    "lane, coalesced": Way("lane", coalesce=True),
    "lane, several callers": Way("lane", callers=CALLERS),
    "lane, several callers, coalesced": Way("lane", coalesce=True, callers=CALLERS),
}


@pytest.fixture(scope="module")
def direct(upstream: Server) -> Json:
    """What one program without a proxy sees."""
    seen = _run(upstream, upstream.url, 1)
    assert math.fsum(seen["losses"][-1]) < 0.95 * math.fsum(seen["losses"][0]), "nothing learned"
    return seen


@pytest.mark.parametrize("name", WAYS)
def test_every_way_ends_with_equal_losses(upstream: Server, direct: Json, name: str) -> None:
    """Equal to 1e-5; and requests are shared where that was asked for, and nowhere else."""
    way = WAYS[name]
    before = upstream.count(TAKEN)
    with proxy(upstream.url, mode=way.mode, coalesce=way.coalesce) as in_front:
        found = _run(upstream, in_front.url, way.callers)
    submits = upstream.count(TAKEN) - before

    assert found["losses"] == _close(direct["losses"])
    assert _norms(found) == pytest.approx(_norms(direct), rel=TOLERANCE)
    calls = STEPS * way.callers + 1  # the last is the look at the end
    print(f"\n{name}: {calls} calls were {submits} requests", flush=True)
    if way.coalesce and way.callers > 1:
        assert submits < calls, "nothing was shared"
    else:
        assert submits == calls


def test_a_lost_datum_would_show(direct: Json) -> None:
    """The control: the steps move losses by far more than the tolerance."""
    first, second, *_ = direct["losses"]
    assert min(abs(one - other) / one for one, other in zip(first, second, strict=True)) > 1e-3


def _close(losses: list[list[float]]) -> list[Any]:
    return [pytest.approx(each, rel=TOLERANCE) for each in losses]


def _norms(seen: Json) -> list[float]:
    return [metrics[GRAD_NORM] for metrics in seen["norms"]]


def _run(upstream: Server, url: str, callers: int) -> Json:
    """Train, and give the model's place back to the upstream."""
    seen = run_program(SDK_038, "sdk_callers.py", [str(callers)], url)
    unload = {"model_id": seen["models"][0]}
    httpx.post(f"{upstream.url}/api/v1/unload_model", json=unload).raise_for_status()
    return seen
