import signal
import socket

import httpx
import pytest

from tests.cli.conftest import url_in


def test_it_says_that_it_is_a_sandbox_and_serves_until_a_signal(start) -> None:
    process = start("sandbox", "--port", "0", "--model", "toy/one", "--model", "toy/two")
    line = process.stdout.readline()
    assert line.startswith("SANDBOX, not a service")
    answer = httpx.get(f"{url_in(line)}/api/v1/get_server_capabilities", trust_env=False)
    names = [model["model_name"] for model in answer.json()["supported_models"]]
    assert names == ["toy/one", "toy/two"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_its_options_reach_it(start) -> None:
    process = start(
        "sandbox", "--host", "::1", "--port", "0", "--api-key", "k", "--flavour", "json"
    )
    url = url_in(process.stdout.readline())
    assert url.startswith("http://[::1]:")
    path, headers = f"{url}/api/v1/healthz", {"x-api-key": "k"}
    assert httpx.get(path, trust_env=False).status_code == 401
    assert httpx.get(path, headers=headers, trust_env=False).status_code == 200
    headers["content-type"] = "application/x-protobuf"
    trained = httpx.post(f"{url}/api/v1/forward_backward", headers=headers, trust_env=False)
    assert trained.status_code == 500, "a JSON-only server knows no protobuf"


def test_a_taken_port_is_told(run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, errors = run("sandbox", "--port", str(port))
    assert status == 69
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use by process" in errors


def test_an_address_that_is_not_ours_is_told(run) -> None:
    status, _, errors = run("sandbox", "--host", "192.0.2.1", "--port", "0")
    assert status == 69
    assert "Cannot assign requested address" in errors


def test_faults_reach_it(start) -> None:
    process = start(
        *("sandbox", "--port", "0", "--fault-seed", "5"),
        *("--fault", "error:status=503,count=1", "--fault", "reset:path=heartbeats"),
    )
    url = url_in(process.stdout.readline())
    with httpx.Client(base_url=url, trust_env=False) as client:
        answers = [client.get("/api/v1/healthz").status_code for _ in range(2)]
        assert answers == [503, 200]
        with pytest.raises(httpx.ReadError):
            client.post("/api/v1/session_heartbeat", json={})
        told = client.get("/sandbox/faults").json()
    assert (told["seed"], told["hits"]) == (5, [1, 1])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("outage", "argument --fault: kind is 'outage'; it is one of latency, error, reset"),
        ("error:rate=5", "argument --fault: error: rate is 5.0; it must be between 0 and 1"),
        ("reset:after", "argument --fault: 'after' is not NAME=VALUE"),
    ],
)
def test_a_bad_fault_is_told_before_anything_listens(run, fault: str, said: str) -> None:
    status, _, errors = run("sandbox", "--fault", fault)
    assert status == 2
    assert said in errors
