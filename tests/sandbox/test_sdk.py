"""The official SDK, as it is, on a real socket."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from tests.api.programs import sdk_environment
from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options

PROGRAM = Path(__file__).with_name("sdk_session.py")
TOKENS = [place * 11 % 400 for place in range(17)]  # of its first datum


@pytest.fixture(params=[1_000_000, 100], ids=["results at once", "results announced first"])
def url(request) -> Iterator[str]:
    """A sandbox in a thread, with a limit that makes the SDK send eight datums in three chunks."""
    options = Options(max_chunk_len=3, metadata_above_bytes=request.param)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(options), log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


def test_the_sdk_trains_saves_resumes_samples_and_asks(url: str) -> None:
    ran = subprocess.run(
        [sys.executable, PROGRAM, url],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=sdk_environment(),
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    losses = seen["losses"]
    assert losses[-1] < losses[0] / 2
    assert losses[20] < losses[10] < losses[0]
    assert seen["resumed"] == [seen["after"], seen["after"]]
    for drawn in seen["samples"]:
        assert [row[:3] for row in drawn["tokens"]] == [TOKENS[4:7]] * 2
        assert len(set(drawn["names"])) == 2
        assert drawn["scored"] == 4
    model_id = seen["model_id"]
    assert seen["paths"] == [
        f"tinker://{model_id}/weights/ck",
        f"tinker://{model_id}/sampler_weights/final",
    ]
    session = model_id.partition(":")[0]
    assert seen["questions"] == {
        "runs": [f"{session}:train:{number}" for number in range(3)],
        "checkpoints": seen["paths"],
        "user_checkpoints": 2,
        "rank": 8,
        "models": ["sandbox/tiny-1"],
        "sessions": 1,
    }
    refused, failed = seen["refusals"]
    assert refused.startswith("NotFoundError")
    assert "this sandbox has sandbox/tiny-1" in refused
    assert failed.startswith("RequestFailedError")
    assert "already exists" in failed
    assert seen["sessions_after"] == 0
