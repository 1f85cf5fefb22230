"""Asking something that may safely be asked again: sessions, configuration, information.

How often, and after what waits, is a row of `core.retry`.
"""

import uuid

import msgspec

from tinkex_proxy.core.advice import NO_ADVICE, Advice, advice_of
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.retry import Happened, Kind, of_fault, of_status
from tinkex_proxy.errors import (
    ProxyError,
    UpstreamFault,
    UpstreamThrottled,
    UpstreamUnreachable,
)
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.pace import DEFAULT_WAIT_S
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import Ask, Unanswered, Upstream, detail_of

__all__ = ["knows_model", "query"]


class _Tried(msgspec.Struct, frozen=True):
    """One attempt without a good answer, and what it comes to if it is the last."""

    happened: Happened
    outcome: Response | ProxyError
    advice: Advice = NO_ADVICE


async def query(
    upstream: Upstream,
    clock: Clock,
    path: str,
    fields: object = None,
    *,
    operation: Operation = Operation.QUERY,
) -> Response:
    """POST `fields` as JSON (or GET when there are none) and give the answer, below 500.

    What it raises is retryable: a call that had to ask something first has not begun, so that the
    same call may come again. Without that a call made in an outage would be lost, and its
    Idempotency-Key with it.

    Raises:
        CircuitOpen: the breaker is open.
        UpstreamUnreachable: no connection.
        UpstreamFault: no answer, or 408 or 5xx, three times.
        UpstreamThrottled: 429 or 402 three times, the waits it asked for observed.
    """
    making = operation is Operation.SESSION
    ask = Ask(
        operation=operation,
        path=path,
        method="GET" if fields is None else "POST",
        body=b"" if fields is None else msgspec.json.encode(fields),
        identity=uuid.uuid4().hex if making else None,
    )
    asking = upstream.retries.begin(Kind.SESSION if making else Kind.QUESTION)
    while True:
        tried = await _try(upstream, ask)
        if isinstance(tried, Response):
            return tried
        wait_s = await upstream.retries.wait_s(asking, tried.happened, tried.advice)
        if wait_s is not None:
            await clock.sleep(wait_s)
        elif isinstance(tried.outcome, Response):
            return tried.outcome
        else:
            tried.outcome.retryable = True
            raise tried.outcome


async def knows_model(upstream: Upstream, clock: Clock, model_id: str) -> bool:
    """Whether the upstream still has a model; an upstream that cannot be asked now may have it."""
    try:
        response = await query(
            upstream, clock, "/api/v1/get_info", {"model_id": model_id, "type": "get_info"}
        )
    except ProxyError:
        return True
    return response.status not in {404, 410}


async def _try(upstream: Upstream, ask: Ask) -> Response | _Tried:
    try:
        response = await upstream.ask(ask)
    except Unanswered as silence:
        return _Tried(of_fault(silence.fault), _error_of(ask.path, silence))
    happened, advice = of_status(response.status), advice_of(response.headers)
    if happened is None:
        return response
    said = f"{ask.path} answered {response.status}: {detail_of(response)}"
    if happened is Happened.THROTTLED:
        wait_s = advice.wait_s or DEFAULT_WAIT_S
        error = UpstreamThrottled(said, retry_after_s=wait_s)
        return _Tried(happened, error, Advice(wait_s, advice.again))
    return _Tried(happened, UpstreamFault(said) if happened is Happened.FAULT else response, advice)


def _error_of(path: str, silence: Unanswered) -> UpstreamFault | UpstreamUnreachable:
    if of_fault(silence.fault) is Happened.UNSENT:
        return UpstreamUnreachable(
            f"No connection to the upstream ({silence.detail}). "
            "Is upstream.base_url right, and is it up?"
        )
    return UpstreamFault(f"{path} was not answered ({silence.detail}).")
