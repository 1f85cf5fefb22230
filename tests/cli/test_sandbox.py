import signal
import socket

import httpx

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
