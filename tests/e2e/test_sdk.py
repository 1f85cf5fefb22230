"""The official SDK 0.25.0, unmodified, trains on the sandbox as it would on a real service."""

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.environments import HERE, SDK_025, build
from tests.e2e.processes import Server
from tests.e2e.servers import KEY, proxy, sandbox

PROGRAM_S = 300


@pytest.fixture(params=["the sandbox itself", "through the proxy"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with sandbox() as upstream:
        if request.param == "the sandbox itself":
            yield upstream
            return
        with proxy(upstream.url) as in_front:
            yield in_front


def test_sdk_0_25_trains_until_the_loss_has_halved_saves_and_samples(server: Server) -> None:
    """A program that knows only the SDK creates, trains, saves and samples."""
    done = subprocess.run(
        [str(build(SDK_025)), str(HERE / "sdk_program.py")],
        env={**os.environ, "TINKER_BASE_URL": server.url, "TINKER_API_KEY": KEY},
        capture_output=True,
        text=True,
        check=False,
        timeout=PROGRAM_S,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    told = json.loads(done.stdout.splitlines()[-1])
    losses = told["losses"]
    print(f"\nmean nll in {len(losses)} steps: {losses[0]:.3f} -> {losses[-1]:.3f}", flush=True)
    assert told["sdk"] == "0.25.0"
    assert losses[-1] <= losses[0] / 2, f"the loss was not halved: {losses}"
    assert told["forward"] < 0.6 * losses[0], "forward does not see the trained weights"
    assert told["state"].startswith("tinker://")
    assert [len(tokens) for tokens in told["tokens"]] == [len(each) for each in told["logprobs"]]
    assert all(0 < len(tokens) <= 8 for tokens in told["tokens"])
    assert len(told["tokens"]) == 2
