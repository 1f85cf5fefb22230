"""The proxy of an afternoon: a route, a client, as the tutorials of FastAPI and httpx have it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request, Response

UPSTREAM = os.environ["COMPARE_UPSTREAM"]
DROPPED = {"host", "connection", "content-length", "transfer-encoding"}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Have one client for all requests."""
    async with httpx.AsyncClient(base_url=UPSTREAM, timeout=60) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/{path:path}")
async def forward(path: str, request: Request) -> Response:
    """Send a request up and its answer down."""
    headers = {name: value for name, value in request.headers.items() if name not in DROPPED}
    client: httpx.AsyncClient = request.app.state.client
    answer = await client.request(
        request.method, f"/{path}", content=await request.body(), headers=headers
    )
    kept = {name: value for name, value in answer.headers.items() if name not in DROPPED}
    return Response(answer.content, answer.status_code, kept)
