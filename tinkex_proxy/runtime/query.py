"""Asking something that may safely be asked again: sessions, configuration, information."""

import random

import msgspec

from tinkex_proxy.core.backoff import Backoff
from tinkex_proxy.core.outcome import Fault, Operation
from tinkex_proxy.errors import (
    ProxyError,
    UpstreamFault,
    UpstreamThrottled,
    UpstreamUnreachable,
)
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.submit import retry_after_s
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import Ask, Unanswered, Upstream, detail_of

__all__ = ["knows_model", "query"]

ATTEMPTS = 3
_BACKOFF = Backoff(base_s=0.2, cap_s=2.0)


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
        UpstreamFault: no answer, or 5xx, three times.
        UpstreamThrottled: 429 three times, the waits it asked for observed.
    """
    ask = Ask(
        operation=operation,
        path=path,
        method="GET" if fields is None else "POST",
        body=b"" if fields is None else msgspec.json.encode(fields),
    )
    failure: ProxyError
    for attempt in range(ATTEMPTS):
        floor_s = 0.0
        try:
            response = await upstream.ask(ask)
        except Unanswered as silence:
            failure = _error_of(path, silence)
        else:
            if response.status < 500 and response.status != 429:
                return response
            floor_s = retry_after_s(response) or 0.0
            failure = _refusal_of(path, response, floor_s)
        if attempt < ATTEMPTS - 1:
            draw = random.random()  # noqa: S311 - jitter, not a secret
            await clock.sleep(_BACKOFF.delay_s(attempt, draw, floor_s=floor_s))
    failure.retryable = True
    raise failure


async def knows_model(upstream: Upstream, clock: Clock, model_id: str) -> bool:
    """Whether the upstream still has a model; an upstream that cannot be asked now may have it."""
    try:
        response = await query(
            upstream, clock, "/api/v1/get_info", {"model_id": model_id, "type": "get_info"}
        )
    except ProxyError:
        return True
    return response.status not in {404, 410}


def _refusal_of(path: str, response: Response, floor_s: float) -> ProxyError:
    said = f"{path} answered {response.status}: {detail_of(response)}"
    if response.status == 429:
        return UpstreamThrottled(said, retry_after_s=floor_s or 1.0)
    return UpstreamFault(said)


def _error_of(path: str, silence: Unanswered) -> UpstreamFault | UpstreamUnreachable:
    if silence.fault in {Fault.CONNECT, Fault.NOT_SENT}:
        return UpstreamUnreachable(
            f"No connection to the upstream ({silence.detail}). "
            "Is upstream.base_url right, and is it up?"
        )
    return UpstreamFault(f"{path} was not answered ({silence.detail}).")
