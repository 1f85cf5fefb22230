"""A scripted upstream that only samples: it answers nobody before all have asked.

It has what the sandbox lacks: `retrieve_futures`, and the flags that make an SDK use it and
`cancel_future`. What a sample is made of tells whose it is.
"""

import asyncio
from collections import defaultdict

import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tinkex_proxy.wire.tinker_pb2 import SampledSequence, SampleResponse

NEVER = 9999  # a prompt that begins so is never answered


def drawn(prompt: list[int], number: int) -> list[int]:
    """The tokens of one sample of a prompt."""
    return [*prompt, number]


class Session:
    """What `retrieve_futures` tells of one sampling session: ids in the order they finished."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.more = asyncio.Event()

    def finish(self, request_id: str) -> None:
        self.finished.append(request_id)
        self.more.set()
        self.more = asyncio.Event()


class SamplingUpstream:
    """Samples, once `callers` of them have been asked for.

    Args:
        callers: how many samples have to be asked for before the first is there.
        client_config: flags for the SDK.
    """

    def __init__(self, callers: int, **client_config: object) -> None:
        self._callers = callers
        self._config = {"pjwt_auth_enabled": False, **client_config}
        self._results: dict[str, bytes] = {}
        self._sessions: defaultdict[str, Session] = defaultdict(Session)
        self._waiting: list[tuple[str, str]] = []
        self.all_here = asyncio.Event()
        self.bodies: defaultdict[str, list[bytes]] = defaultdict(list)
        self.request_of: dict[tuple[int, ...], str] = {}
        self.never: str | None = None
        self.never_polled: asyncio.Queue[str] = asyncio.Queue()
        self.cancelled: asyncio.Queue[str] = asyncio.Queue()
        self.hung_up: asyncio.Queue[str] = asyncio.Queue()
        self.acked: set[str] = set()
        self.all_acked = asyncio.Event()
        self.app = Starlette(
            routes=[Route("/api/v1/{call:path}", self._answer, methods=["GET", "POST"])]
        )

    async def _answer(self, request: Request) -> Response:
        call = request.path_params["call"]
        body = await request.body()
        self.bodies[call.rpartition("/")[2]].append(body)
        named = msgspec.json.decode(body) if body else {}
        handler = getattr(self, f"_{call.replace('/', '_')}", None)
        if handler is None:
            return JSONResponse(self._plain(call))
        return await handler(request, named)

    def _plain(self, call: str) -> object:
        return {
            "client/config": self._config,
            "client/dynamic_config": {"sample_cancel_enabled": True},
            "create_session": {"type": "create_session", "session_id": "s"},
            "create_sampling_session": {
                "type": "create_sampling_session",
                "sampling_session_id": "s:sample:0",
            },
            "samplers/s:sample:0": {"sampler_id": "s:sample:0", "base_model": "tiny"},
            "telemetry": {"status": "accepted"},
        }.get(call, {})

    async def _asample(self, _: Request, asked: dict[str, object]) -> Response:
        session = asked["sampling_session_id"]
        request_id = f"{session}#{asked['seq_id']}"
        prompt = [token for chunk in asked["prompt"]["chunks"] for token in chunk["tokens"]]
        numbers = range(asked["num_samples"])
        if prompt[0] == NEVER:
            self.never = request_id
        else:
            self.request_of[tuple(prompt)] = request_id
            self._results[request_id] = SampleResponse(
                sequences=[
                    SampledSequence(tokens=np.array(drawn(prompt, n), np.int32).tobytes())
                    for n in numbers
                ]
            ).SerializeToString()
            self._waiting.append((session, request_id))
        if len(self._results) >= self._callers:
            self.all_here.set()
            for waiting in self._waiting:
                self._sessions[waiting[0]].finish(waiting[1])
            self._waiting.clear()
        names = [f"{request_id}/{n}" for n in numbers]
        return JSONResponse({"request_id": request_id, "sample_sequence_ids": names})

    async def _retrieve_future(self, request: Request, asked: dict[str, object]) -> Response:
        request_id = asked["request_id"]
        if request_id not in self._results:
            self.never_polled.put_nowait(request_id)
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.hung_up.put_nowait(request_id)
            return Response(status_code=499)
        await self.all_here.wait()
        return Response(self._results[request_id], media_type="application/x-protobuf")

    async def _cancel_future(self, _: Request, asked: dict[str, object]) -> Response:
        request_id = asked["request_id"]
        self.cancelled.put_nowait(request_id)
        self._sessions[request_id.partition("#")[0]].finish(request_id)
        return JSONResponse({"type": "cancel_future"})

    async def _retrieve_futures(self, _: Request, asked: dict[str, object]) -> Response:
        session = self._sessions[asked["target"]["sampling_session_id"]]
        seen = asked["prev_cursor"]
        self.acked.update(asked["retrieved_request_ids"])
        if len(self.acked) == self._callers:
            self.all_acked.set()
        if seen == len(session.finished) and asked.get("timeout") != 0:
            if self.never is not None:
                self.never_polled.put_nowait(self.never)
            await session.more.wait()
        completions = [self._completion(name) for name in session.finished[seen:]]
        return JSONResponse({"completions": completions, "cursor": len(session.finished)})

    def _completion(self, request_id: str) -> dict[str, object]:
        if request_id not in self._results:
            return {"state": "failed", "request_id": request_id}
        size = len(self._results[request_id])
        finished = {"state": "finished", "request_id": request_id}
        return {**finished, "response_payload_uncompressed_size": size}
