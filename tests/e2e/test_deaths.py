"""The proxy is killed in the middle of training on a real upstream, and goes on where it was.

SkyRL knows a repeated request by its model and number, and is asked whether it does before anything
is sent again. The losses and the norms of the gradients are those of a run that nothing happened
to.
"""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.plain import RANK, datums, mean_nll
from tests.e2e.processes import Server
from tests.e2e.servers import PROTOBUF, Generation, skyrl
from tests.faults.harness import Caller, Process, caller

STEPS = 4
PATIENCE_S = 240.0  # the first call of a shape waits for the upstream's compiler
GRAD_NORM = "skyrl.ai/grad_norm"
DATA = datums(4, 16)
# At which step, and at which request of its life, each of the two doomed proxies dies. The `acted`
# ones die when SkyRL has taken a request and they have not heard it.
DEATHS = [("acted", 3, 2), ("sent", 4, 3), ("split", 3, 2)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    generation: Generation = PROTOBUF
    with skyrl(generation, tmp_path_factory.mktemp("skyrl")) as running:
        yield running


@pytest.fixture
def proxy(server: Server, tmp_path: Path) -> Iterator[Process]:
    options = ("--upstream.base-url", server.url, "--journal.state-dir", str(tmp_path))
    process = Process("serve", *options, log=tmp_path / "proxy.log").start()
    yield process
    process.stop()


async def trained(one: Caller, base_model: str) -> list[tuple[float, float]]:
    """Train a model; gives each step's loss and norm, and gives the model's place back, clean."""
    body = {"base_model": base_model, "rank": RANK, "seed": 5}
    model_id = (await one.call("/v1/models", body))["model_id"]
    seen = []
    for _ in range(STEPS):
        loss = mean_nll(
            await one.call("/v1/forward_backward", {"model_id": model_id, "data": DATA})
        )
        adam = {"model_id": model_id, "adam_params": {"learning_rate": 0.01}}
        stepped = await one.call("/v1/optim_step", adam)
        seen.append((loss, stepped["metrics"][GRAD_NORM]))
    await one.delete(f"/v1/models/{model_id}")
    return seen


def base_model_of(proxy: Process) -> str:
    offered = httpx.get(f"{proxy.url}/v1/capabilities", trust_env=False, timeout=30).json()
    return str(offered["models"][0]["model_name"])


@pytest.mark.parametrize(("step", "first", "second"), DEATHS)
def test_training_ends_as_if_nothing_had_happened(
    proxy: Process, step: str, first: int, second: int
) -> None:
    base_model = base_model_of(proxy)

    def dies(number: int | None) -> None:
        assert proxy.died() == -signal.SIGKILL
        proxy.program = ("tinkex_proxy",)
        if number is not None:
            proxy.program = ("tests.crash.doomed", step, str(number))
        proxy.start()

    async def run(deaths: list[int | None]) -> list[tuple[float, float]]:
        async with caller(proxy.url, patience_s=PATIENCE_S) as one:
            training = asyncio.ensure_future(trained(one, base_model))
            for number in deaths:
                await asyncio.to_thread(dies, number)
            return await training

    undisturbed = asyncio.run(run([]))
    proxy.stop()
    proxy.program = ("tests.crash.doomed", step, str(first))
    proxy.start()
    disturbed = asyncio.run(run([second, None]))
    for (loss, norm), (calm_loss, calm_norm) in zip(disturbed, undisturbed, strict=True):
        assert loss == pytest.approx(calm_loss, rel=1e-5)
        assert norm == pytest.approx(calm_norm, rel=1e-5)
