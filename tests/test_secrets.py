"""Nothing that is secret is written anywhere: keys of callers, our own, the collector's; what is
trained on.

Every route is driven, with good bodies and bad ones, with the upstream there and away, at the most
talkative level; then all that was written is searched.
"""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.api.driving import datum
from tests.api.sdk_calls import json_message, message
from tests.conftest import ROOT, Collector, started

OWN, CALLERS, BEARER, COLLECTORS = (
    f"tml-canary-{whose}" for whose in ("own", "caller", "bearer", "collector")
)
KEYS = (OWN, CALLERS, BEARER, COLLECTORS)
WORDS = "canary-words-of-a-training-set"
TOKENS = [101, 102, 103, 104, 105, 106, 107, 108]
# As they would look wherever somebody printed them.
TEXTS = (*KEYS, WORDS, str(TOKENS)[1:-1], str(TOKENS)[1:-1].replace(" ", ""))


@dataclass
class Running:
    url: str
    process: "subprocess.Popen[str]"
    sandbox: "subprocess.Popen[str]"
    stderr: Path
    state: Path


@pytest.fixture
def running(tmp_path: Path, collector: Collector) -> Iterator[Running]:
    """A proxy that writes all it can, where a test can read it."""
    sandbox, upstream = started("sandbox", "--port", "0")
    stderr, state = tmp_path / "stderr", tmp_path / "state"
    options = {
        "upstream.base-url": upstream,
        "upstream.submit-retry-s": "1",
        "log.level": "debug",
        "log.format": "json",
        "journal.state-dir": str(state),
        "tracing.endpoint": collector.url,
    }
    command = [part for name, value in options.items() for part in (f"--{name}", value)]
    secrets = {
        "TINKEX_PROXY_UPSTREAM__API_KEY": OWN,
        "TINKEX_PROXY_TRACING__HEADERS": f"authorization={COLLECTORS}",
    }
    with stderr.open("w") as writing:
        process = subprocess.Popen(
            [sys.executable, "-m", "tinkex_proxy", "serve", "--port", "0", *command],
            stdout=subprocess.PIPE,
            stderr=writing,
            text=True,
            cwd=ROOT,
            env={**os.environ, **secrets},
        )
    assert process.stdout is not None
    url = re.search(r"listening on (http://\S+)", process.stdout.readline())
    assert url is not None
    try:
        yield Running(url[1], process, sandbox, stderr, state)
    finally:
        for one in (process, sandbox):
            one.kill()
            one.wait()
            if one.stdout is not None:
                one.stdout.close()


def bodies_of(model_id: str) -> dict[tuple[str, str], object]:
    """A body for every route that takes one."""
    short = {"tokens": TOKENS, "targets": TOKENS}
    train = {"model_id": model_id, "data": [short]}
    step = {"model_id": model_id, "adam_params": {"learning_rate": 0.1}}
    sample = {"prompt": TOKENS, "num_samples": 1, "sampling_params": {"max_tokens": 2}}
    named = {"model_id": model_id, "path": "a"}
    return {
        ("POST", "/v1/models"): {"base_model": "sandbox/tiny-1", "metadata": {"note": WORDS}},
        ("POST", "/v1/forward_backward"): train,
        ("POST", "/v1/forward"): train,
        ("POST", "/v1/forward_backward_batch"): {"requests": [train, {"words": WORDS}]},
        ("POST", "/v1/optim_step"): step,
        ("POST", "/v1/optim_step_batch"): {"requests": [step]},
        ("POST", "/v1/sample"): {"model_id": model_id, **sample},
        ("POST", "/v1/save_weights"): named,
        ("POST", "/v1/save_weights_for_sampler"): {**named, "path": "b"},
        ("POST", "/v1/load_weights"): named,
    }


# Asked in another way, or at the end.
APART = {
    ("GET", "/breakers/events"),
    ("GET", "/metrics/events"),
    ("POST", "/drain"),
    ("POST", "/breakers/{breaker_id}/open"),
    ("DELETE", "/v1/models/{model_id}"),
}


def drive(client: httpx.Client) -> str:
    """Ask every route there is; gives what the operators' routes said."""
    seen: list[str] = []
    model_id = client.post("/v1/models", json={"base_model": "sandbox/tiny-1"}).json()["model_id"]
    breaker_id = client.get("/breakers").json()["breakers"][0]["id"]
    future = client.post(
        "/v1/forward_backward",
        json=bodies_of(model_id)["POST", "/v1/forward_backward"],
        headers={"prefer": "respond-async", "idempotency-key": "once"},
    )
    places = {
        "{model_id}": model_id,
        "{name}": "tinkex.batch.size",
        "{breaker_id}": breaker_id,
        "{future_id}": future.json()["future_id"],
        "{level}": "debug",
    }
    asked = set()
    document = client.get("/openapi.json").json()
    routes = {(m.upper(), path) for path, ways in document["paths"].items() for m in ways}
    for method, route in sorted(routes - APART):
        path = route
        for place, value in places.items():
            path = path.replace(place, value)
        body = bodies_of(model_id).get((method, route))
        answer = client.request(method, path, json=body)
        assert answer.status_code != 404, (method, path)
        asked.add((method, route))
        if not route.startswith(("/v1/", "/api/")):
            seen.append(answer.text)
        if body is not None:
            client.request(method, path, json={"words": WORDS, "data": TOKENS})
            client.request(method, path, content=b'{"words": "' + WORDS.encode())
    assert asked | APART >= routes
    assert asked >= bodies_of(model_id).keys()
    _drive_as_sdks_do(client, model_id)
    return "\n".join([*seen, client.get("/lanes").text, client.get("/metrics").text])


def _drive_as_sdks_do(client: httpx.Client, model_id: str) -> None:
    protobuf = {"content-type": "application/x-protobuf"}
    submitted = client.post(
        "/api/v1/forward_backward", content=message(model_id, 1, 1), headers=protobuf
    )
    client.post("/api/v1/retrieve_future", json=submitted.json())
    client.post("/api/v1/forward_backward", json=json_message(model_id, 2, 1))
    client.post("/api/v1/forward_backward", content=WORDS.encode(), headers=protobuf)
    client.post("/api/v1/create_session", json={"tags": [WORDS], "type": "create_session"})
    client.post("/api/v1/anything", json={"words": WORDS})
    client.get(f"/api/v1/anything?words={WORDS}")


def test_nothing_secret_is_written_anywhere(running: Running, collector: Collector) -> None:
    told = ""
    for headers in ({"x-api-key": CALLERS}, {"authorization": f"Bearer {BEARER}"}, {}):
        with httpx.Client(base_url=running.url, headers=headers, trust_env=False) as client:
            client.timeout = httpx.Timeout(30)
            told += drive(client)
            running_models = client.get("/v1/models").json()["models"]
    running.sandbox.kill()
    running.sandbox.wait()
    with httpx.Client(base_url=running.url, trust_env=False, timeout=30) as client:
        client.headers["x-api-key"] = CALLERS
        for model in running_models:
            body = {"model_id": model["model_id"], "data": [datum(1)]}
            client.post("/v1/forward_backward", json=body, headers={"x-request-timeout": "2"})
        client.post("/v1/models", json={"base_model": WORDS})
        client.post("/api/v1/asample", json={"prompt": TOKENS})
        told += client.get("/breakers").text
        client.post("/drain")
    running.process.wait(30)
    said = running.stderr.read_text()
    taken = collector.taken()
    spans = b"".join(base64.b64decode(body) for body in taken["bodies"]).decode("latin-1")
    assert {headers["authorization"] for headers in taken["headers"]} == {COLLECTORS}
    written = {"the log": said, "what operators see": told, "the traces": spans}
    for place, text in written.items():
        assert len(text) > 10_000, place
        for secret in TEXTS:
            assert secret not in text, (place, secret)
    journal = b"".join(path.read_bytes() for path in running.state.iterdir())
    assert len(journal) > 10_000
    for secret in KEYS:
        assert secret.encode() not in journal, secret
    assert running.state.stat().st_mode & 0o077 == 0, "it holds what is trained on"


def test_every_line_about_a_call_names_it(running: Running) -> None:
    with httpx.Client(base_url=running.url, trust_env=False, timeout=30) as client:
        trace = "0af7651916cd43dd8448eb211c80319c"
        client.headers["traceparent"] = f"00-{trace}-b7ad6b7169203331-01"
        model_id = client.post("/v1/models", json={"base_model": "sandbox/tiny-1"}).json()[
            "model_id"
        ]
        body = {"model_id": model_id, "data": [datum(1)]}
        answer = client.post("/v1/forward_backward", json=body)
        client.post("/v1/forward_backward", content=b"", headers={"x-request-timeout": "x"})
        client.post("/drain")
    running.process.wait(30)
    lines = [json.loads(line) for line in running.stderr.read_text().splitlines()]
    request_id = answer.headers["x-request-id"]
    mine = [line for line in lines if line.get("request_id") == request_id]
    assert [line["event"] for line in mine] == ["batch left", "call"]
    for line in mine:
        assert line["trace_id"] == trace
        assert line["key_id"]
        assert model_id in line.get("model_ids", [line.get("model_id")])
    (turned_away,) = [line for line in lines if line["event"] == "refused"]
    assert (turned_away["code"], turned_away["trace_id"]) == ("invalid_request", trace)
    (opened,) = [line for line in lines if line["event"] == "upstream session opened"]
    assert opened["key_id"] == mine[0]["key_id"]
