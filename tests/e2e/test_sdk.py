"""Official SDKs, unmodified, on the sandbox: through the proxy they see what they see directly.

Every run has a sandbox of its own, so that ids and seeds are the same in all of them. SDK 0.24.1
speaks JSON, 0.25.0 and 0.38.0 protobuf; each creates, trains, sends more datums than one request
may have, has a loss of its own, saves, loads, samples and lists: see `sdk_flow.py`.
"""

import httpx
import pytest

from tests.e2e.processes import Server
from tests.e2e.sdk_runs import SDKS, Sdk, Seen, assert_same, loss, losses, run_sdk
from tests.e2e.servers import MODES, proxy, sandbox

STEPS = 24
PARTS = ("chunks", "custom")
REQUESTS = 2 * STEPS + 23  # 1,025 datums are two, and a custom loss is a forward and a backward


@pytest.fixture(scope="module", params=SDKS, ids=lambda sdk: sdk.version)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    return request.param


@pytest.fixture(scope="module", params=["sync", "async"])
def style(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def direct(sdk: Sdk, style: str) -> Seen:
    """What the program sees without a proxy."""
    with sandbox() as upstream:
        return _run(sdk, style, upstream, upstream.url)


def test_a_program_trains_saves_loads_and_samples(direct: Seen) -> None:
    """What the other runs are compared with is worth it: it learned, and nothing came up short."""
    first, *_, last = losses(direct)
    assert last <= first / 2, f"the loss was not halved: {losses(direct)}"
    assert direct["upstream"]["requests"] == REQUESTS, "the large calls were not sent in chunks"
    assert all(len(each["loss_fn_outputs"]) == 1025 for each in direct["chunks"][::2])
    assert direct["custom"][0]["metrics"]["surprise:sum"] > 0
    _, fresh, resumed = direct["saved"]
    assert fresh[0] == resumed[0]
    assert loss(fresh[0]) < last, "what was saved is not what was trained"
    assert fresh[2] != resumed[2], "the optimizer's state makes no difference"
    _, loaded, after = direct["loaded"]
    assert isinstance(loaded[0], dict), f"load_state was refused: {loaded[0]}"
    assert after[0]["loss_fn_outputs"] == fresh[0]["loss_fn_outputs"]
    for drawn, scored in direct["sampled"][1:]:
        assert len(drawn["sequences"]) == 2
        assert len(scored) == 3
    assert len(direct["listed"][2]) == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_proxy_changes_nothing(sdk: Sdk, style: str, direct: Seen, mode: str) -> None:
    """Not a bit of an answer, and not a bit of the weights that are trained."""
    with sandbox() as upstream, proxy(upstream.url, mode=mode) as in_front:
        assert_same(_run(sdk, style, upstream, in_front.url), direct)


def _run(sdk: Sdk, style: str, upstream: Server, url: str) -> Seen:
    """What the program saw, and what the sandbox then says of the model and its weights."""
    seen = run_sdk(sdk, url, style, STEPS, PARTS)
    inspected = httpx.get(f"{upstream.url}/sandbox/models/{seen['models'][0]}").raise_for_status()
    return {**seen, "upstream": inspected.json()}
