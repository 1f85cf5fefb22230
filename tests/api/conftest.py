"""Real servers on loopback sockets, in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import uvicorn

from tests.api.recorder import Recorder
from tests.api.served import Serve, Served
from tinkex_proxy.api.connections import Connection
from tinkex_proxy.api.listener import listen_tcp, url_of
from tinkex_proxy.api.parting import PartingServer
from tinkex_proxy.assembly import Proxy, build
from tinkex_proxy.config import Settings
from tinkex_proxy.runtime.store import MemoryStore
from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options


@asynccontextmanager
async def listening(app: object) -> AsyncIterator[str]:
    """Serve an ASGI app on a free loopback port, as a proxy is served; gives its URL."""
    listener = listen_tcp("127.0.0.1", 0)
    server = PartingServer(
        uvicorn.Config(
            app,
            interface="asgi3",
            http=Connection,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
        )
    )
    running = asyncio.create_task(server.serve(sockets=[listener]))
    started = asyncio.create_task(server.up.wait())
    await asyncio.wait({running, started}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield url_of(listener)
    finally:
        started.cancel()
        server.should_exit = True
        await running
        listener.close()


@dataclass
class Running:
    """A proxy at work, with a client on it."""

    url: str
    proxy: Proxy
    client: httpx.AsyncClient

    async def post(self, path: str, body: object = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return await self.client.post(path, content=body, headers=named)
        return await self.client.post(path, json=body, headers=named)

    async def create(self, **fields: object) -> str:
        body = {"base_model": "sandbox/tiny-1", "rank": 8, "seed": 1, **fields}
        response = await self.post("/v1/models", body)
        assert response.status_code == 200, response.text
        return response.json()["model_id"]


def routes_of(app: object) -> list[tuple[str, str]]:
    """Path and method of every route, those of included routers too."""
    found = []
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            found += routes_of(inner)
        elif hasattr(route, "path"):
            methods = getattr(route, "methods", None) or {"GET"}
            found += [(route.path, method) for method in sorted(methods - {"HEAD"})]
    return found


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
def routes(proxy: Running) -> list[tuple[str, str]]:
    """Path and method of every route of the proxy."""
    return routes_of(proxy.proxy.app._app._app)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a proxy in front of an upstream: `await start(upstream_url, section={...})`.

    It has a journal where it is given a store.
    """
    async with AsyncExitStack() as stack:

        async def run(
            upstream: str, /, store: MemoryStore | None = None, **sections: Mapping[str, object]
        ) -> Running:
            options = {
                f"{section}.{name}": value
                for section, values in sections.items()
                for name, value in values.items()
            }
            settings = Settings.load({"upstream.base_url": upstream, **options})
            proxy = build(settings, store=store)
            url = await stack.enter_async_context(listening(proxy.app))
            client = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)
            return Running(url, proxy, await stack.enter_async_context(client))

        yield run


@pytest.fixture
async def upstream() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Start a sandbox: `await upstream(flavours="json")` gives its URL."""
    async with AsyncExitStack() as stack:

        async def run(**options: object) -> str:
            app = create_app(Options(**options))
            return await stack.enter_async_context(listening(app))

        yield run


@pytest.fixture
async def proxy(start: Start, upstream: Callable[..., Awaitable[str]]) -> Running:
    """A proxy with defaults in front of a sandbox with defaults."""
    return await start(await upstream())


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recording = Recorder()
    server = await asyncio.start_server(recording.serve, "127.0.0.1", 0, limit=2**20)
    recording.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield recording
    server.close()


@pytest.fixture(params=["auto", "pyqwest", "httpx"])
async def passing(start, recorder, request):
    """A proxy in transparent mode in front of the recorder, over each transport."""
    return await start(
        recorder.url, upstream={"transport": request.param}, sdk={"mode": "transparent"}
    )


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def run(**options: object) -> Served:
            listener = listen_tcp("127.0.0.1", 0)
            served = Served(None, None, listener.getsockname()[1])
            config = uvicorn.Config(
                served.app,
                interface="asgi3",
                http=Connection,
                log_config=None,
                lifespan="off",
                timeout_graceful_shutdown=20,
                **options,
            )
            served.server = PartingServer(config)
            served.running = asyncio.create_task(served.server.serve(sockets=[listener]))
            await served.server.up.wait()

            async def end() -> None:
                served.let_go.set()
                served.leave()
                for client in served.dialled:
                    client.writer.close()
                await served.running

            stack.push_async_callback(end)
            return served

        yield run
