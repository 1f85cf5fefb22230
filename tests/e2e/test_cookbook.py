"""tinker-cookbook's supervised recipe, as it comes from its package, trains through the proxy."""

from pathlib import Path

import httpx
import pytest

from tests.e2e.environments import SDK_038, checkpoint
from tests.e2e.processes import Server
from tests.e2e.sdk_runs import run_program
from tests.e2e.servers import PROTOBUF, TAKEN

STEPS = 6
FALL = 0.95


@pytest.mark.parametrize("generation", [PROTOBUF], indirect=True, ids=["SkyRL 0.4.0"])
def test_the_supervised_recipe_runs(upstream: Server, proxied: Server, tmp_path: Path) -> None:
    """Six steps in three epochs with a checkpoint after every second: the loss falls."""
    before = upstream.count(TAKEN)
    arguments = [str(checkpoint()), str(tmp_path)]
    told = run_program(SDK_038, "cookbook_program.py", arguments, proxied.url, folder=tmp_path)

    losses = [row["train_mean_nll"] for row in told["metrics"]]
    print(f"\nmean nll of the recipe: {' -> '.join(f'{each:.3f}' for each in losses)}", flush=True)
    assert len(losses) == STEPS
    assert losses[-1] <= FALL * losses[0], f"the loss did not fall: {losses}"
    assert upstream.count(TAKEN) - before == STEPS
    assert [saved["name"] for saved in told["saved"]] == ["000002", "000004", "final"]
    paths = [saved["state_path"] for saved in told["saved"]]
    assert all(path.startswith("tinker://") for path in paths)

    unload = {"model_id": paths[0].split("/")[2]}
    httpx.post(f"{upstream.url}/api/v1/unload_model", json=unload).raise_for_status()
