"""`GET /v1/futures/{id}?wait=SECONDS`: the answer of a call whose caller did not wait."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from urllib.parse import parse_qs

from tinkex_proxy.api.asgi import (
    CallerLeft,
    Receive,
    Scope,
    Send,
    headers_of,
    read_body,
    send_answer,
)
from tinkex_proxy.api.callers import key_of, wait_for
from tinkex_proxy.api.calls import Services, accepted
from tinkex_proxy.api.problems import problem_answer
from tinkex_proxy.api.watch import leaving_of
from tinkex_proxy.errors import DeadlineExceeded, InvalidRequest, ProxyError
from tinkex_proxy.runtime.ledger import Answer

__all__ = ["FutureRoute"]

# A future is held no longer than most HTTP clients wait.
MAX_FUTURE_WAIT_S = 60.0


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
            await read_body({}, receive, replace(self._services.settings.body, max_bytes=0))
            promise = partial(self._services.ledger.promise, entry)
            try:
                leaving = leaving_of(scope, receive)
                return await wait_for(entry, None, leaving, timeout_s=wait_s, promise=promise)
            except DeadlineExceeded:
                return accepted(entry)
        return entry.task.result() if entry.task.done() else accepted(entry)


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
