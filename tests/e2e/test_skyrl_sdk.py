"""Official SDKs, unmodified, on real servers: through the proxy they see what they see directly.

SDK 0.25.0 and 0.38.0 train on SkyRL 0.4.0, SDK 0.24.1 on SkyRL 0.3.0. All runs on one server have
the same seeds, and its engine takes datums one at a time: results are the same to the last bit.
"""

import httpx
import pytest

from tests.e2e.processes import Server
from tests.e2e.sdk_runs import SDKS, Sdk, Seen, anonymous, assert_same, loss, losses, run_sdk
from tests.e2e.servers import JSON, MODES, PROTOBUF, Generation, proxy

STEPS = 6
FALL = 0.95
PAIRS = [(JSON, SDKS[0]), (PROTOBUF, SDKS[1]), (PROTOBUF, SDKS[2])]

pytestmark = pytest.mark.parametrize(
    ("generation", "sdk"), PAIRS, indirect=True, ids=[sdk.version for _, sdk in PAIRS]
)


@pytest.fixture(scope="module")
def sdk(request: pytest.FixtureRequest) -> Sdk:
    return request.param


@pytest.fixture(scope="module")
def direct(sdk: Sdk, upstream: Server) -> Seen:
    """What the program sees without a proxy."""
    return _run(sdk, upstream, upstream.url)


def test_a_program_trains_saves_goes_on_and_samples(direct: Seen, generation: Generation) -> None:
    """What the other runs are compared with is worth it: it learned, and saved what it learned.

    SkyRL 0.4.0 loads only into new models: going back to a checkpoint in a model that has trained
    is a 400 there, by design; a model made from the checkpoint gives what was saved.
    """
    first, *_, last = losses(direct)
    assert last <= FALL * first, f"the loss did not fall: {losses(direct)}"
    _, fresh, resumed = direct["saved"]
    assert fresh[0] == resumed[0]
    # a forward without a gradient is another program to a compiler: not the same last bit
    assert loss(fresh[0]) == pytest.approx(loss(direct["forward"][0]), rel=1e-5)
    _, [loaded], _ = direct["loaded"]
    if generation is PROTOBUF:
        assert "LoadWeights is not permitted" in loaded
    else:
        assert isinstance(loaded, dict), f"load_state was refused: {loaded}"
    assert all(len(drawn["sequences"]) == 2 for drawn, _ in direct["sampled"][1:])
    assert len(direct["listed"][2]) == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_proxy_changes_nothing(sdk: Sdk, upstream: Server, direct: Seen, mode: str) -> None:
    """Not a bit of an answer: losses, outputs, samples, what is listed, what is refused."""
    with proxy(upstream.url, mode=mode) as in_front:
        found = _run(sdk, upstream, in_front.url)
    assert_same(found, direct)


def _run(sdk: Sdk, upstream: Server, url: str) -> Seen:
    """What the program saw, without ids; its models' places are given back to the upstream."""
    seen = run_sdk(sdk, url, "sync", STEPS)
    for model_id in seen["models"]:
        unload = f"{upstream.url}/api/v1/unload_model"
        httpx.post(unload, json={"model_id": model_id}).raise_for_status()
    return anonymous(seen)
