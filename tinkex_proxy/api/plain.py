"""The plain calls, `/v1/*`: JSON in, JSON out, the answer when it is there.

What each call does is one short coroutine here; what they share is in `calls.py`, and
`api/openapi.py` describes them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from starlette.routing import BaseRoute, Route

from tinkex_proxy.api.calls import Asked, CallRoute, Handler, Services
from tinkex_proxy.api.direct import Branching, ShortWay
from tinkex_proxy.api.futures import FutureRoute
from tinkex_proxy.api.plain_small import SmallPlainCalls
from tinkex_proxy.api.problems import problem_fields
from tinkex_proxy.errors import InvalidJson, InvalidRequest, ProxyError
from tinkex_proxy.runtime import sampling, trainer
from tinkex_proxy.runtime.query import query
from tinkex_proxy.runtime.upstream import json_of
from tinkex_proxy.wire import plain
from tinkex_proxy.wire.answer_json import encode_answer

__all__ = ["plain_routes"]

T = TypeVar("T")


async def _capabilities(asked: Asked) -> object:
    account = asked.account
    path = "/api/v1/get_server_capabilities"
    answer = json_of(await query(account.upstream, account.tools.clock, path))
    return {"models": answer.get("supported_models", [])}


async def _create_model(asked: Asked) -> object:
    body = plain.decode_create_model(asked.body)
    return await trainer.create_model(asked.account, body, asked.ticket)


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
        known = asked.settings.extra_loss_fns
        decode = partial(plain.decode_training, extra_loss_fns=known)
        call = await trainer.decoded(asked.account, asked.body, asked.ticket, decode)
        return await trainer.train(asked.account, call, asked.ticket, forward_only=forward_only)

    return handler


async def _optim_step(asked: Asked) -> object:
    body = plain.decode_optim_step(asked.body)
    return await trainer.optim_step(asked.account, body, asked.ticket)


async def _forward_backward_batch(asked: Asked) -> object:
    known = asked.settings.extra_loss_fns
    decode = partial(plain.decode_training_batch, extra_loss_fns=known)
    calls = await trainer.decoded(asked.account, asked.body, asked.ticket, decode)
    return await _each(
        asked,
        calls,
        lambda call, item: trainer.train(asked.account, call, asked.ticket, item=item),
    )


async def _optim_step_batch(asked: Asked) -> object:
    steps = plain.decode_optim_step_batch(asked.body)
    asked.ticket.take_turn(asked.account.turns)
    return await _each(
        asked,
        steps,
        lambda step, item: trainer.optim_step(asked.account, step, asked.ticket, item=item),
    )


async def _each(
    asked: Asked,
    items: Sequence[T | InvalidRequest | InvalidJson],
    do: Callable[[T, int], Awaitable[object]],
) -> object:
    """Do every item, in order on its lane; one that fails does not spoil the others."""
    asked.ticket.items = sum(not isinstance(i, InvalidRequest | InvalidJson) for i in items)

    async def one(number: int, item: T | InvalidRequest | InvalidJson) -> object:
        try:
            if isinstance(item, InvalidRequest | InvalidJson):
                raise item
            answer = await do(item, number)
        except ProxyError as error:
            problem = problem_fields(error, instance=asked.path, request_id=asked.request_id)
            return {"status": "error", "error": problem}
        encoding = partial(encode_answer, answer, status="ok")
        body = await asked.account.tools.aside.do(encoding, large=asked.ticket.large)
        return msgspec.Raw(body)

    return {"results": await asyncio.gather(*(one(*numbered) for numbered in enumerate(items)))}


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


def _route(services: Services, method: str, path: str, app: CallRoute | FutureRoute) -> Route:
    waits = isinstance(app, FutureRoute)
    traced = services.traced(app, lambda _: path, lambda _: waits)
    short: dict[str, ShortWay] = {}
    if isinstance(app, CallRoute):
        short[path] = partial(SmallPlainCalls, app, services, path)
    return Branching(path, traced, short, [method])


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
        _route(services, method, path, CallRoute(operation, handler, services))
        for method, path, operation, handler in calls
    ]
    routes.append(_route(services, "GET", "/v1/futures/{future_id}", FutureRoute(services)))
    return routes
