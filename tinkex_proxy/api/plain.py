"""The plain calls, `/v1/*`: JSON in, JSON out, the answer when it is there.

These are ASGI endpoints mounted beside FastAPI's own routes, because a training call is megabytes
and a rollout makes thousands of samples: no per-request framework work, one decode, one encode.
What all calls share (key, deadline, idempotency, disconnects, errors, timing) is `CallRoute`; what
each call does is one short coroutine below it. `api/openapi.py` describes them.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar
from urllib.parse import parse_qs

import msgspec
from starlette.routing import BaseRoute, Route

from tinkex_proxy.api.asgi import Receive, Scope, Send, headers_of, read_body, send_answer
from tinkex_proxy.api.callers import CallerLeft, Wishes, digest_of, key_of, wait_for, wishes_of
from tinkex_proxy.api.problems import problem_answer, problem_fields
from tinkex_proxy.errors import DeadlineExceeded, Draining, InvalidJson, InvalidRequest, ProxyError
from tinkex_proxy.runtime import sampling, trainer
from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.accounts import Accounts
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import CallEnded, Hub, Note
from tinkex_proxy.runtime.ledger import Answer, Entry, Ledger
from tinkex_proxy.runtime.query import query
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.runtime.upstream import json_of
from tinkex_proxy.runtime.work import Timeline
from tinkex_proxy.wire import plain

__all__ = ["PlainSettings", "Services", "plain_routes"]

T = TypeVar("T")

# A future is held no longer than most HTTP clients wait.
MAX_FUTURE_WAIT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainSettings:
    """What holds for every plain call.

    Attributes:
        max_body_bytes: longest body taken.
        default_timeout_s: deadline of a caller that names none, or None.
        extra_loss_fns: losses the upstream has beyond those we know.
    """

    max_body_bytes: int = 64 * 1024 * 1024
    default_timeout_s: float | None = None
    extra_loss_fns: frozenset[str] = frozenset()


@dataclass(slots=True, kw_only=True)
class Services:
    """What the calls work with."""

    accounts: Accounts
    ledger: Ledger
    clock: Clock
    hub: Hub
    settings: PlainSettings
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, decoded as far as all calls are alike."""

    account: Account
    body: bytes
    ticket: Ticket
    settings: PlainSettings
    path: str
    path_params: Mapping[str, str]
    request_id: str


Handler: TypeAlias = Callable[[Asked], Awaitable[object]]


class CallRoute:
    """The ASGI endpoint of one call.

    Args:
        operation: the call's name in metrics and logs.
        handler: does it; gives what is encoded as JSON.
        services: what it works with.
    """

    def __init__(self, operation: str, handler: Handler, services: Services) -> None:
        self._operation = operation
        self._handler = handler
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request_id = uuid.uuid4().hex
        extra = {"x-request-id": request_id}
        path = str(scope["path"])
        try:
            answer = await self._answer(scope, receive, request_id, extra)
        except CallerLeft:
            note = f"{self._operation}: the caller hung up; request {request_id}"
            self._services.hub.tell(Note("info", note))
            return
        except ProxyError as error:
            answer = problem_answer(error, instance=path, request_id=request_id)
        await send_answer(send, answer, extra)

    async def _answer(
        self, scope: Scope, receive: Receive, request_id: str, extra: dict[str, str]
    ) -> Answer:
        services = self._services
        headers = headers_of(scope)
        if services.draining:
            raise Draining("The proxy is shutting down and takes no new calls.", retry_after_s=1.0)
        account = services.accounts.of(key_of(headers))
        wishes = wishes_of(headers, default_timeout_s=services.settings.default_timeout_s)
        body = await read_body(headers, receive, services.settings.max_body_bytes)
        entry, ticket = self._entry(scope, account, wishes, body, request_id)
        if entry.id != request_id:
            extra["x-tinkex-repeats"] = entry.id
        if wishes.respond_async:
            entry.wanted = True
            return _accepted(entry)
        return await wait_for(entry, ticket, receive, timeout_s=wishes.timeout_s)

    def _entry(
        self, scope: Scope, account: Account, wishes: Wishes, body: bytes, request_id: str
    ) -> tuple[Entry, Ticket | None]:
        """The first call under this Idempotency-Key, or this call, started."""
        services, path = self._services, str(scope["path"])
        digest = digest_of(str(scope["method"]), path, body)
        if wishes.idempotency_key is not None:
            first = services.ledger.repeated(account.key_id, wishes.idempotency_key, digest)
            if first is not None:
                return first, None
        now = services.clock.now()
        deadline = None if wishes.timeout_s is None else now + wishes.timeout_s
        ticket = Ticket(deadline=deadline, coalesce=wishes.coalesce)
        params = scope.get("path_params")
        asked = Asked(
            account,
            body,
            ticket,
            services.settings,
            path,
            params if isinstance(params, Mapping) else {},
            request_id,
        )
        work = self._run(asked)
        key = wishes.idempotency_key
        entry = services.ledger.start(request_id, account.key_id, work, key=key, digest=digest)
        return entry, ticket

    async def _run(self, asked: Asked) -> Answer:
        """Do the call; whatever happens becomes an answer."""
        services = self._services
        began = services.clock.now()
        code = "ok"
        try:
            result = await self._handler(asked)
            headers = _headers(result, asked.ticket.timeline)
            answer = Answer(200, msgspec.json.encode(result), headers)
        except ProxyError as error:
            code = error.code
            answer = problem_answer(error, instance=asked.path, request_id=asked.request_id)
        except asyncio.CancelledError:
            code = "withdrawn"
            raise
        except Exception as bug:  # noqa: BLE001 - nobody gets a stack trace; the log does
            code = "internal_error"
            services.hub.tell(Note("error", f"{self._operation} failed", bug))
            fault = ProxyError("The proxy failed; its log tells why.")
            answer = problem_answer(fault, instance=asked.path, request_id=asked.request_id)
        finally:
            took = services.clock.now() - began
            services.hub.tell(CallEnded(self._operation, code, took))
        return answer


def _headers(result: object, timeline: Timeline) -> dict[str, str]:
    parts = {
        "queue": timeline.queue_s,
        "linger": timeline.linger_s,
        "upload": timeline.upload_s,
        "upstream-queue": timeline.upstream_queue_s,
        "compute": timeline.compute_s,
    }
    timing = ", ".join(f"{name};dur={seconds * 1000:.3f}" for name, seconds in parts.items())
    headers = {"server-timing": timing}
    if isinstance(result, plain.TrainingAnswer):
        batch = result.batch
        headers["x-tinkex-batch"] = (
            f"{batch.id}; requests={batch.requests}; datums={batch.datums}; index={batch.index}"
        )
    return headers


def _accepted(entry: Entry) -> Answer:
    body = msgspec.json.encode({"future_id": entry.id, "status": "pending"})
    headers = {"location": f"/v1/futures/{entry.id}", "preference-applied": "respond-async"}
    return Answer(202, body, headers)


async def _capabilities(asked: Asked) -> object:
    account = asked.account
    path = "/api/v1/get_server_capabilities"
    answer = json_of(await query(account.upstream, account.tools.clock, path))
    return {"models": answer.get("supported_models", [])}


async def _create_model(asked: Asked) -> object:
    return await trainer.create_model(asked.account, plain.decode_create_model(asked.body))


async def _list_models(asked: Asked) -> object:
    return {"models": [m.facts for m in asked.account.models.values() if m.gone is None]}


async def _show_model(asked: Asked) -> object:
    model = asked.account.model(asked.path_params["model_id"])
    lane = model.snapshot(asked.account.tools.clock.now())
    return {**model.facts, "lane": lane}


async def _delete_model(asked: Asked) -> object:
    return await trainer.unload(asked.account, asked.path_params["model_id"], asked.ticket)


def _training(*, forward_only: bool) -> Handler:
    async def handler(asked: Asked) -> object:
        call = plain.decode_training(asked.body, extra_loss_fns=asked.settings.extra_loss_fns)
        return await trainer.train(asked.account, call, asked.ticket, forward_only=forward_only)

    return handler


async def _optim_step(asked: Asked) -> object:
    body = plain.decode_optim_step(asked.body)
    return await trainer.optim_step(asked.account, body, asked.ticket)


async def _forward_backward_batch(asked: Asked) -> object:
    calls = plain.decode_training_batch(asked.body, extra_loss_fns=asked.settings.extra_loss_fns)
    return await _each(asked, calls, lambda call: trainer.train(asked.account, call, asked.ticket))


async def _optim_step_batch(asked: Asked) -> object:
    steps = plain.decode_optim_step_batch(asked.body)
    return await _each(
        asked, steps, lambda step: trainer.optim_step(asked.account, step, asked.ticket)
    )


async def _each(
    asked: Asked,
    items: Sequence[T | InvalidRequest | InvalidJson],
    do: Callable[[T], Awaitable[object]],
) -> object:
    """Do every item, in order on its lane; one that fails does not spoil the others."""

    async def one(item: T | InvalidRequest | InvalidJson) -> object:
        try:
            if isinstance(item, InvalidRequest | InvalidJson):
                raise item
            fields = msgspec.to_builtins(await do(item))
        except ProxyError as error:
            problem = problem_fields(error, instance=asked.path, request_id=asked.request_id)
            return {"status": "error", "error": problem}
        return {"status": "ok", **fields}

    return {"results": await asyncio.gather(*map(one, items))}


async def _sample(asked: Asked) -> object:
    return await sampling.sample(asked.account, plain.decode_sample(asked.body), asked.ticket)


async def _save_weights(asked: Asked) -> object:
    body = plain.decode_save_weights(asked.body)
    return await trainer.save_weights(asked.account, body, asked.ticket, for_sampler=False)


async def _save_weights_for_sampler(asked: Asked) -> object:
    body = plain.decode_save_weights(asked.body)
    return await trainer.save_weights(asked.account, body, asked.ticket, for_sampler=True)


async def _load_weights(asked: Asked) -> object:
    body = plain.decode_load_weights(asked.body)
    return await trainer.load_weights(asked.account, body, asked.ticket)


class FutureRoute:
    """`GET /v1/futures/{id}?wait=SECONDS`: the answer of a call whose caller did not wait."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the kept answer, or 202 while there is none."""
        request_id = uuid.uuid4().hex
        extra = {"x-request-id": request_id}
        try:
            answer = await self._answer(scope, receive)
        except CallerLeft:
            return
        except ProxyError as error:
            answer = problem_answer(error, instance=str(scope["path"]), request_id=request_id)
        await send_answer(send, answer, extra)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        account = self._services.accounts.of(key_of(headers_of(scope)))
        params = scope.get("path_params")
        future_id = str(params["future_id"]) if isinstance(params, Mapping) else ""
        entry = self._services.ledger.find(account.key_id, future_id)
        wait_s = _wait_s(scope)
        if not entry.task.done() and wait_s > 0:
            await read_body({}, receive, 0)
            try:
                return await wait_for(entry, None, receive, timeout_s=wait_s)
            except DeadlineExceeded:
                return _accepted(entry)
        return entry.task.result() if entry.task.done() else _accepted(entry)


def _wait_s(scope: Scope) -> float:
    query_string = scope.get("query_string", b"")
    text = query_string.decode("latin-1") if isinstance(query_string, bytes) else ""
    said = parse_qs(text).get("wait", ["0"])[-1]
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InvalidRequest(f"wait is {said!r}; say a number of seconds, such as wait=30.")
    return min(seconds, MAX_FUTURE_WAIT_S)


def plain_routes(services: Services) -> list[BaseRoute]:
    """Every `/v1` route."""
    calls: list[tuple[str, str, str, Handler]] = [
        ("GET", "/v1/capabilities", "capabilities", _capabilities),
        ("POST", "/v1/models", "create_model", _create_model),
        ("GET", "/v1/models", "list_models", _list_models),
        ("GET", "/v1/models/{model_id}", "show_model", _show_model),
        ("DELETE", "/v1/models/{model_id}", "delete_model", _delete_model),
        ("POST", "/v1/forward_backward", "forward_backward", _training(forward_only=False)),
        ("POST", "/v1/forward", "forward", _training(forward_only=True)),
        ("POST", "/v1/forward_backward_batch", "forward_backward_batch", _forward_backward_batch),
        ("POST", "/v1/optim_step", "optim_step", _optim_step),
        ("POST", "/v1/optim_step_batch", "optim_step_batch", _optim_step_batch),
        ("POST", "/v1/sample", "sample", _sample),
        ("POST", "/v1/save_weights", "save_weights", _save_weights),
        (
            "POST",
            "/v1/save_weights_for_sampler",
            "save_weights_for_sampler",
            _save_weights_for_sampler,
        ),
        ("POST", "/v1/load_weights", "load_weights", _load_weights),
    ]
    routes: list[BaseRoute] = [
        Route(path, CallRoute(operation, handler, services), methods=[method])
        for method, path, operation, handler in calls
    ]
    routes.append(Route("/v1/futures/{future_id}", FutureRoute(services), methods=["GET"]))
    return routes
