"""A sandbox in the test's own event loop, with time in the test's hands."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import httpx
import pytest

from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options

MODEL = "sandbox/tiny-1"
PROTOBUF = "application/x-protobuf"


@dataclass
class Clock:
    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Sandbox:
    client: httpx.AsyncClient
    clock: Clock = field(default_factory=Clock)

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(path)

    async def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return await self.client.post(f"/api/v1/{path}", content=body, headers=named)
        return await self.client.post(f"/api/v1/{path}", json=body or {}, headers=named)

    async def submit(self, path: str, body: object = None, **headers: str) -> str:
        """Submit; gives the promise's id."""
        answer = await self.post(path, body, **headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["request_id"]

    async def poll(self, request_id: str, **fields: object) -> httpx.Response:
        return await self.post("retrieve_future", {"request_id": request_id, **fields})

    async def call(self, path: str, body: object = None) -> dict[str, object]:
        """Submit and await the result, however often it takes to ask for it."""
        request_id = await self.submit(path, body)
        while (answer := await self.poll(request_id)).status_code == 408:
            pass
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def session(self) -> str:
        return (await self.post("create_session")).json()["session_id"]

    async def model(self, session: str | None = None, number: int = 0, rank: int = 4) -> str:
        """Make a model; gives its id."""
        body = {
            "session_id": session or await self.session(),
            "model_seq_id": number,
            "base_model": MODEL,
            "lora_config": {"rank": rank, "seed": 1},
        }
        return (await self.call("create_model", body))["model_id"]

    async def inspect(self, model_id: str) -> dict[str, object]:
        answer = await self.get(f"/sandbox/models/{model_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Sandbox]]]:
    """Start a sandbox: `await start(flavours="json")`."""
    async with AsyncExitStack() as stack:

        async def run(**options: object) -> Sandbox:
            clock = Clock()
            app = create_app(Options(**options), now=clock)
            await stack.enter_async_context(app.router.lifespan_context(app))
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://sandbox", timeout=30
            )
            return Sandbox(await stack.enter_async_context(client), clock)

        yield run


@pytest.fixture
async def sandbox(start: Callable[..., Awaitable[Sandbox]]) -> Sandbox:
    """A sandbox with defaults."""
    return await start()


@pytest.fixture
def training() -> Callable[..., dict[str, object]]:
    """Make a JSON `forward_backward` body."""

    def make(model_id: str, seq_id: int | None, *tokens: list[int], **fields: object):
        data = [
            {
                "model_input": {"chunks": [{"tokens": row[:-1]}]},
                "loss_fn_inputs": {
                    "target_tokens": {"data": row[1:], "dtype": "int64"},
                    "weights": {"data": [1.0] * (len(row) - 1), "dtype": "float32"},
                },
            }
            for row in tokens or ([3, 1, 4, 1, 5],)
        ]
        call = {"data": data, "loss_fn": "cross_entropy", **fields}
        return {"model_id": model_id, "seq_id": seq_id, "forward_backward_input": call}

    return make
