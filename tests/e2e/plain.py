"""What a program with nothing but an HTTP client does with `/v1`, and what it trains on."""

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx

Json = dict[str, Any]

RANK = 8  # as large as the upstream under test allows
SEED = 11
LEARNING_RATE = 1e-2
TIMEOUT_S = 300.0  # the first call of a shape waits for the upstream's compiler
UNCOALESCED = {"X-Tinkex-Coalesce": "off"}
COALESCED: dict[str, str] = {}


class Plain:
    """The calls of `/v1`; each answers the decoded body and fails on any status but 2xx."""

    def __init__(self, http: httpx.AsyncClient, base_model: str) -> None:
        self._http = http
        self.base_model = base_model

    async def get(self, path: str) -> Json:
        """GET a path under `/v1`."""
        return _body(await self._http.get(f"/v1/{path}"))

    async def post(self, path: str, body: Json, headers: dict[str, str] | None = None) -> Json:
        """POST a body to a path under `/v1`."""
        return _body(await self._http.post(f"/v1/{path}", json=body, headers=headers))

    async def forward_backward(
        self, model_id: str, data: Sequence[Json], headers: dict[str, str] = COALESCED
    ) -> Json:
        """Accumulate the gradient of these datums."""
        body: Json = {"model_id": model_id, "data": list(data)}
        return await self.post("forward_backward", body, headers)

    async def forward(self, model_id: str, data: Sequence[Json]) -> list[list[float]]:
        """Return the log probabilities of each datum's targets."""
        return logprobs(await self.post("forward", {"model_id": model_id, "data": list(data)}))

    async def step(self, model_id: str) -> dict[str, float]:
        """Apply what has accumulated, and return the metrics."""
        adam_params: Json = {"learning_rate": LEARNING_RATE}
        body: Json = {"model_id": model_id, "adam_params": adam_params}
        return (await self.post("optim_step", body))["metrics"]

    @asynccontextmanager
    async def model(self, seed: int = SEED) -> AsyncIterator[str]:
        """Make a model for the time of the block; its place at the upstream is given back, clean.

        SkyRL keeps a gradient that no step has applied, and lets the next model of the same place
        inherit it: a step before the end takes it away.
        """
        body: Json = {"base_model": self.base_model, "rank": RANK, "seed": seed}
        model_id = (await self.post("models", body))["model_id"]
        try:
            yield model_id
        finally:
            last: Json = {"model_id": model_id, "adam_params": {"learning_rate": 0.0}}
            await self._http.post("/v1/optim_step", json=last)
            answer = await self._http.delete(f"/v1/models/{model_id}")
            assert answer.is_success, f"DELETE /v1/models/{model_id}: {answer.text}"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Plain]:
    """Speak to the proxy at `url` about the one model that its upstream has."""
    # an idle connection is dropped by us, not by the server just as we use it again
    limits = httpx.Limits(max_connections=32, keepalive_expiry=2.0)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits) as http:
        plain = Plain(http, "")
        plain.base_model = (await plain.get("capabilities"))["models"][0]["model_name"]
        yield plain


def datums(count: int, length: int) -> list[Json]:
    """Give `count` short sequences of `length` tokens, no two the same."""
    return [_datum([(i * 7 + j * 3) % 400 + 2 for j in range(length + 1)]) for i in range(count)]


def ragged(count: int) -> list[Json]:
    """Give `count` sequences of 5, 8, 11 ... tokens: who gets whose outputs then shows."""
    return [_datum([(i * 11 + j * 5) % 390 + 2 for j in range(6 + 3 * i)]) for i in range(count)]


def logprobs(answer: Json) -> list[list[float]]:
    """Return the log probabilities of each datum of an answer."""
    return [each["logprobs"]["data"] for each in answer["loss_fn_outputs"]]


def mean_nll(answer: Json) -> float:
    """Return the mean over datums of the mean negative log probability per token."""
    each = [-math.fsum(values) / len(values) for values in logprobs(answer)]
    return math.fsum(each) / len(each)


def _datum(tokens: list[int]) -> Json:
    weights = [1.0] * (len(tokens) - 1)
    return {"tokens": tokens[:-1], "targets": tokens[1:], "weights": weights}


def _body(answer: httpx.Response) -> Json:
    request = answer.request
    assert answer.is_success, (
        f"{request.method} {request.url.path}: {answer.status_code} {answer.text}"
    )
    return answer.json()
