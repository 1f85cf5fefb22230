"""What can be asked about models, checkpoints, samplers and sessions, in the REST shapes.

Times of day are all the same: the sandbox reads no clock of day, and the shapes want one.
"""

import datetime as dt
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinkex_proxy.sandbox.bodies import BadRequest
from tinkex_proxy.sandbox.engine import Live
from tinkex_proxy.sandbox.http import Routes, read_fields
from tinkex_proxy.sandbox.service import Service

__all__ = ["Registry"]

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).isoformat()


class Registry:
    """Questions, and the one order that is asked the same way: to delete a checkpoint."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def get_info(self, request: Request) -> Response:
        """Tell about a live model."""
        body = await read_fields(request)
        live = self._service.live(str(body.get("model_id")))
        data = {"base_model": live.trained.base_model, "model_name": live.trained.base_model}
        lora = {"rank": live.trained.adapter.rank}
        return JSONResponse(
            {
                "type": "get_info",
                "model_id": live.model_id,
                "model_data": {**data, "arch": "sandbox", "lora_config": lora},
                "model_name": live.trained.base_model,
                "is_lora": True,
                "lora_rank": live.trained.adapter.rank,
            }
        )

    async def weights_info(self, request: Request) -> Response:
        """Tell about saved weights."""
        body = await read_fields(request)
        saved = self._service.shelf.get(str(body.get("tinker_path")))
        return JSONResponse(
            {"base_model": saved.base_model, "is_lora": True, "lora_rank": saved.rank}
        )

    async def sampler(self, request: Request) -> Response:
        """Tell about a sampler."""
        found = self._service.shelf.sampler(request.path_params["sampler_id"])
        fields = {"base_model": found.base_model, "model_path": found.model_path}
        return JSONResponse({"sampler_id": found.sampler_id, **fields})

    async def runs(self, request: Request) -> Response:
        """List the live models."""
        self._service.sessions.sweep()
        listed = [_run(live) for live in self._service.engine.models.values()]
        return JSONResponse(_page(request, "training_runs", listed))

    async def run(self, request: Request) -> Response:
        """Tell about one of them."""
        return JSONResponse(_run(self._live(request)))

    async def checkpoints(self, request: Request) -> Response:
        """List what a model was saved as."""
        paths = self._service.shelf.paths(request.path_params["model_id"])
        return JSONResponse({"checkpoints": [_checkpoint(path) for path in paths]})

    async def all_checkpoints(self, request: Request) -> Response:
        """List everything that was saved."""
        listed = [_checkpoint(path) for path in self._service.shelf.paths()]
        return JSONResponse(_page(request, "checkpoints", listed))

    async def delete_checkpoint(self, request: Request) -> Response:
        """Forget saved weights."""
        model_id, checkpoint = (request.path_params[name] for name in ("model_id", "checkpoint"))
        self._service.shelf.remove(f"tinker://{model_id}/{checkpoint}")
        return JSONResponse({"type": "delete_checkpoint"})

    async def sessions(self, request: Request) -> Response:
        """List the live sessions."""
        ids: list[object] = list(self._service.sessions.ids)
        return JSONResponse(_page(request, "sessions", ids))

    async def session(self, request: Request) -> Response:
        """Tell about one of them."""
        found = self._service.sessions.find(request.path_params["session_id"])
        models = self._service.engine.models.values()
        ids = [live.model_id for live in models if live.session_id == found.session_id]
        return JSONResponse({"training_run_ids": ids, "sampler_ids": []})

    async def inspect(self, request: Request) -> Response:
        """Tell what no real service tells; for tests of exactly-once."""
        live = self._live(request)
        return JSONResponse(
            {
                "model_id": live.model_id,
                "next_seq": live.next_seq,
                "waiting": sorted(live.waiting),
                "requests": len(live.seen),
                "steps": live.trained.adam.steps,
                "datums_since_step": live.trained.datums,
                "gradient_norm": live.trained.gradient_norm,
                "weights_digest": live.trained.digest,
            }
        )

    def routes(self) -> Routes:
        """Path, method and endpoint of each."""
        return {
            "/api/v1/get_info": ("POST", self.get_info),
            "/api/v1/weights_info": ("POST", self.weights_info),
            "/api/v1/samplers/{sampler_id}": ("GET", self.sampler),
            "/api/v1/training_runs": ("GET", self.runs),
            "/api/v1/training_runs/{model_id}": ("GET", self.run),
            "/api/v1/training_runs/{model_id}/checkpoints": ("GET", self.checkpoints),
            "/api/v1/training_runs/{model_id}/checkpoints/{checkpoint:path}": (
                "DELETE",
                self.delete_checkpoint,
            ),
            "/api/v1/checkpoints": ("GET", self.all_checkpoints),
            "/api/v1/sessions": ("GET", self.sessions),
            "/api/v1/sessions/{session_id}": ("GET", self.session),
            "/sandbox/models/{model_id}": ("GET", self.inspect),
        }

    def _live(self, request: Request) -> Live:
        return self._service.live(request.path_params["model_id"])


def _page(request: Request, name: str, items: Sequence[object]) -> dict[str, object]:
    """The part of a list that was asked for, and where it stands in the whole."""
    try:
        offset = int(request.query_params.get("offset", 0))
        limit = int(request.query_params.get("limit", 20))
    except ValueError:
        raise BadRequest("offset and limit must be numbers") from None
    cursor = {"offset": offset, "limit": limit, "total_count": len(items)}
    return {name: items[offset : offset + limit], "cursor": cursor}


def _run(live: Live) -> dict[str, object]:
    return {
        "training_run_id": live.model_id,
        "base_model": live.trained.base_model,
        "model_owner": "sandbox",
        "is_lora": True,
        "corrupted": False,
        "lora_rank": live.trained.adapter.rank,
        "last_request_time": EPOCH,
        "last_checkpoint": None,
        "last_sampler_checkpoint": None,
        "user_metadata": live.user_metadata,
    }


def _checkpoint(path: str) -> dict[str, object]:
    kind, _, name = path.removeprefix("tinker://").partition("/")[2].partition("/")
    return {
        "checkpoint_id": f"{kind}/{name}",
        "checkpoint_type": "training" if kind == "weights" else "sampler",
        "time": EPOCH,
        "tinker_path": path,
    }
