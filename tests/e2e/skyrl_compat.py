"""Let SkyRL 0.4.0, which goes with SDK 0.25, answer SDK 0.38 too: the wire has moved on since.

The additions answer only what 0.4.0 as it is cannot; nothing else is touched:

* SDK 0.26 and later want an id for each sample in the promise of `asample`;
* SDK 0.38 makes a model from a checkpoint with one `load_weights` that has a session instead of a
  model, and derives the model's id itself;
* it also says when it closes a session, and takes a 404 for a failure.
"""

import json
from typing import Any
from uuid import uuid4

from fastapi import Request
from fastapi.responses import JSONResponse
from sqlmodel.ext.asyncio.session import AsyncSession

LOAD = "/api/v1/load_weights"


def install(api: Any) -> None:
    """Add them to the application of `skyrl.tinker.api`."""
    _name_samples(api.app)
    _create_from_checkpoint(api)
    _finish_sessions(api.app)


def _name_samples(app: Any) -> None:
    @app.middleware("http")
    async def name_samples(request: Request, call_next: Any) -> Any:
        if request.url.path != "/api/v1/asample":
            return await call_next(request)
        count = json.loads(await request.body()).get("num_samples", 1)
        answer = await call_next(request)
        promise = json.loads(b"".join([part async for part in answer.body_iterator]))
        if answer.status_code == 200:
            promise["sample_sequence_ids"] = [uuid4().hex for _ in range(count)]
        return JSONResponse(promise, answer.status_code)


def _create_from_checkpoint(api: Any) -> None:
    routes = api.app.router.routes
    original = next(route.endpoint for route in routes if getattr(route, "path", "") == LOAD)

    async def load_weights(request: Request) -> Any:
        body = await request.json()
        async with AsyncSession(request.app.state.db_engine) as session:
            if not body.get("model_id"):
                model_id = await _create(api, session, body)
                body = {**body, "model_id": model_id}
            return await original(api.LoadWeightsRequest.model_validate(body), request, session)

    api.app.add_api_route(LOAD, load_weights, methods=["POST"])
    routes.insert(0, routes.pop())


def _finish_sessions(app: Any) -> None:
    """Hear it; the session ends, as with older SDKs, when its heartbeats do."""

    @app.post("/api/v1/sessions/{session_id}/finish")
    async def finish(session_id: str) -> dict[str, str]:
        return {"type": "session_finish"}


async def _create(api: Any, session: AsyncSession, body: dict[str, Any]) -> str:
    """What `create_model` does, with the base model and the rank of the checkpoint's model."""
    source = await api.get_model(session, api.types.TinkerPath.parse(body["path"]).primary_id)
    model_id = f"{body['session_id']}:train:{body['model_seq_id']}"
    lora = api.types.LoraConfig.model_validate(source.lora_config)
    request_id = await api.create_future(
        session=session,
        request_type=api.types.RequestType.CREATE_MODEL,
        model_id=model_id,
        request_data=api.types.CreateModelInput(lora_config=lora, model_role="policy"),
    )
    model = api.ModelDB(
        model_id=model_id,
        base_model=source.base_model,
        lora_config=lora.model_dump(),
        status="created",
        request_id=request_id,
        session_id=body["session_id"],
    )
    session.add(model)
    await session.commit()
    return model_id
