"""Getting one request admitted, without ever making it run twice.

A submit that may have reached the upstream is repeated **with the same bytes and the same seq_id**,
which the upstream recognises ((model_id, seq_id) is its identity: SkyRL answers the first
`request_id` again). So a reset, a silence or a 5xx is asked again until an answer comes or patience
ends; only a refused connection and a 4xx prove that nothing ran. Where the upstream is known not to
recognise repetitions (SkyRL 0.3.0 runs them again) such a submit is not repeated: its caller is
told that the outcome is unknown. The waits follow full jitter and never undercut the upstream's
`Retry-After` or `retry-after-ms`.
"""

import random
from dataclasses import dataclass

import msgspec

from tinkex_proxy.core.backoff import Backoff
from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.errors import (
    ApiKeyRefused,
    CircuitOpen,
    OutcomeUnknown,
    ProxyError,
    UpstreamConflict,
    UpstreamFault,
    UpstreamRefused,
    UpstreamThrottled,
    UpstreamUnreachable,
)
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import Ask, Unanswered, Upstream, detail_of, retry_after_s

__all__ = ["Admitted", "Refused", "Submitter", "admission", "retry_after_s"]

# A refused connection is asked again this often before the caller is told: with the waits between,
# that covers the restart of a local upstream, and is how often a breaker lets it fail.
CONNECT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Admitted:
    """The upstream took the request.

    Attributes:
        request_id: what its future is called, or None when `response` already is the answer.
        response: the answer to the submit.
    """

    request_id: str | None
    response: Response


@dataclass(frozen=True, slots=True)
class Refused:
    """The request will not run, or nobody can say.

    Attributes:
        error: for the caller.
        status: the upstream's status, or None when it gave none.
        bisect: whether one part of a shared request may have spoilt it for the others.
        doubtful: whether the request may have run after all.
    """

    error: ProxyError
    status: int | None = None
    bisect: bool = False
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class _Again:
    """Worth repeating."""

    error: ProxyError
    may_have_run: bool
    floor_s: float = 0.0


# Faults that prove that nothing was sent.
_NOT_SENT = frozenset({Fault.CONNECT, Fault.NOT_SENT})
# Refusals that are about the key, the model or the number, so that no part of a request has earned
# them alone.
_OF_ALL = frozenset({401, 403, 404, 409, 410})


class Submitter:
    """Submits to one upstream.

    Args:
        upstream: where to.
        clock: measures patience and sleeps.
        patience_s: how long an unanswered submit is repeated; the SDK's own figure is 300 s.
        backoff: how long to wait between repetitions.
    """

    def __init__(
        self,
        upstream: Upstream,
        clock: Clock,
        *,
        patience_s: float = 300.0,
        backoff: Backoff | None = None,
    ) -> None:
        self._upstream = upstream
        self._clock = clock
        self._patience_s = patience_s
        self._backoff = backoff or Backoff()

    async def submit(self, ask: Ask) -> Admitted | Refused:
        """Repeat `ask` until the upstream has answered it."""
        if ask.doubtful and not ask.repeatable:
            return _gave_up(UpstreamFault("The proxy ended meanwhile."), doubtful=True)
        began = self._clock.now()
        attempt = 0
        doubtful = ask.doubtful
        last: ProxyError | None = None
        while True:
            verdict = await self._try(ask)
            if not isinstance(verdict, _Again):
                return verdict
            if isinstance(verdict.error, CircuitOpen) and not doubtful and not ask.persistent:
                return Refused(last or verdict.error)
            doubtful = doubtful or verdict.may_have_run
            attempt += 1
            out_of_time = self._clock.now() - began >= self._patience_s
            out_of_time = out_of_time or (doubtful and not ask.repeatable)
            refused = isinstance(verdict.error, UpstreamUnreachable) and not doubtful
            tired = refused and attempt >= CONNECT_ATTEMPTS and not ask.persistent
            if out_of_time or tired:
                return _gave_up(verdict.error, doubtful=doubtful)
            last = verdict.error
            draw = random.random()  # noqa: S311 - jitter, not a secret
            await self._clock.sleep(
                self._backoff.delay_s(attempt - 1, draw, floor_s=verdict.floor_s)
            )

    async def _try(self, ask: Ask) -> Admitted | Refused | _Again:
        try:
            response = await self._upstream.ask(ask)
        except CircuitOpen as error:
            return _Again(error, may_have_run=False, floor_s=error.retry_after_s or 0.0)
        except Unanswered as silence:
            return _Again(_error_of(silence), may_have_run=silence.fault not in _NOT_SENT)
        return _read(ask, response)


def _error_of(silence: Unanswered) -> ProxyError:
    if silence.fault in _NOT_SENT:
        return UpstreamUnreachable(
            f"No connection to the upstream ({silence.detail}); nothing was sent. "
            "Is upstream.base_url right, and is it up?"
        )
    return UpstreamFault(f"The upstream did not answer ({silence.detail}).")


def _gave_up(error: ProxyError, *, doubtful: bool) -> Refused:
    if not doubtful:
        return Refused(error)
    return Refused(
        OutcomeUnknown(
            f"The request went out and no usable answer came. {error.detail} "
            "It may have run: look at the model before you send it again."
        ),
        doubtful=True,
    )


def _read(ask: Ask, response: Response) -> Admitted | Refused | _Again:
    status = response.status
    if 200 <= status < 300:
        return admission(response)
    if status in {402, 408, 429} or status >= 500:
        return _later(ask, response)
    refusal = _refusal(ask, response)
    # As in the SDK, whose training submits go on after a `false` all the same.
    if response.headers.get("x-should-retry") == "true":
        return _Again(refusal.error, may_have_run=False, floor_s=retry_after_s(response) or 0.0)
    return refusal


def _later(ask: Ask, response: Response) -> _Again:
    """An answer that is no answer yet."""
    status, said, floor_s = response.status, detail_of(response), retry_after_s(response)
    error: ProxyError
    if status in {402, 429}:
        floor_s = floor_s or 1.0
        error = UpstreamThrottled(
            f"The upstream asks to slow down ({status}: {said}).", retry_after_s=floor_s
        )
        return _Again(error, may_have_run=False, floor_s=floor_s)
    error = UpstreamFault(f"{ask.path} answered {status}: {said}")
    return _Again(error, may_have_run=True, floor_s=floor_s or 0.0)


def _refusal(ask: Ask, response: Response) -> Refused:
    status, said = response.status, detail_of(response)
    error: ProxyError
    if status in {401, 403}:
        error = ApiKeyRefused(
            f"The upstream refused the API key ({status}: {said}). "
            "Check upstream.api_key, or the X-API-Key header you sent."
        )
    elif status == 409:
        error = UpstreamConflict(f"{ask.path} answered 409: {said}")
    else:
        error = UpstreamRefused(f"{ask.path} answered {status}: {said}")
    error.upstream_said = (status, said)
    return Refused(error, status, bisect=400 <= status < 500 and status not in _OF_ALL)


def admission(response: Response) -> Admitted:
    """What the upstream says when it takes a request."""
    return Admitted(_request_id(response), response)


class Promise(msgspec.Struct):
    """The part of a submit's answer that names its future."""

    request_id: str | int | None = None


def _request_id(response: Response) -> str | None:
    try:
        named = msgspec.json.decode(response.body, type=Promise).request_id
    except msgspec.DecodeError:
        return None
    return None if named is None else str(named)
