"""Getting one request admitted, without ever making it run twice.

What is sent again, and after what, is a row of `core.retry`; here the answers are read. A submit
that may have reached the upstream is repeated **with the same bytes and the same seq_id**, which
the upstream recognises ((model_id, seq_id) is its identity: SkyRL answers the first `request_id`
again). So a reset, a silence or a 5xx is asked again until an answer comes or patience ends; only a
refused connection and a 4xx prove that nothing ran, and a 4xx only where no attempt before it may
have run. Where the upstream is known not to recognise repetitions (SkyRL 0.3.0 runs them again)
such a submit is not repeated: its caller is told that the outcome is unknown.
"""

from collections.abc import Hashable

import msgspec
from msgspec.structs import replace

from tinkex_proxy.core.advice import NO_ADVICE, Advice, advice_of
from tinkex_proxy.core.retry import Asking, Happened, of_fault, of_status
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
from tinkex_proxy.runtime.pace import DEFAULT_WAIT_S, Leave
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import Ask, Unanswered, Upstream, detail_of

__all__ = ["Admitted", "Refused", "Submitter", "admission"]


class Admitted(msgspec.Struct, frozen=True):
    """The upstream took the request.

    Attributes:
        request_id: what its future is called, or None when `response` already is the answer.
        response: the answer to the submit.
    """

    request_id: str | None
    response: Response


class Refused(msgspec.Struct, frozen=True):
    """The request will not run, or nobody can say.

    Attributes:
        error: for the caller.
        status: of the upstream's last answer, or None when there was none.
        bisect: whether one part of a shared request may have spoilt it for the others.
        doubtful: whether the request may have run after all.
    """

    error: ProxyError
    status: int | None = None
    bisect: bool = False
    doubtful: bool = False


class _Failed(msgspec.Struct, frozen=True):
    """One attempt that did not get the request admitted."""

    error: ProxyError
    happened: Happened
    status: int | None = None
    advice: Advice = NO_ADVICE


class Submitter:
    """Submits to one upstream.

    Args:
        upstream: where to.
        clock: sleeps.
        patience_s: how long an unanswered submit is repeated; the SDK's own figure is 300 s.
    """

    def __init__(self, upstream: Upstream, clock: Clock, *, patience_s: float = 300.0) -> None:
        self._upstream = upstream
        self._clock = clock
        self._patience_s = patience_s

    def leave(self, flow: Hashable) -> Leave:
        """Leave to submit once, to be waited for and sent with (`Ask.leave`)."""
        return self._upstream.pace.leave(flow)

    def reconfigure(self, *, patience_s: float) -> None:
        """Repeat an unanswered submit for so long, from the next one on."""
        self._patience_s = patience_s

    async def submit(self, ask: Ask) -> Admitted | Refused:
        """Repeat `ask` until the upstream has answered it."""
        retries = self._upstream.retries
        asking = retries.begin(
            ask.kind,
            recognised=ask.repeatable,
            persistent=ask.persistent,
            doubtful=ask.doubtful,
            patience_s=self._patience_s,
        )
        if ask.doubtful and not ask.repeatable:
            ended = UpstreamFault("The proxy ended meanwhile.")
            return _gave_up(asking, _Failed(ended, Happened.LOST), None)
        last: ProxyError | None = None
        while True:
            tried = await self._try(ask)
            if isinstance(tried, Admitted):
                return tried
            calls = ask.behalf.calls
            wait_s = await retries.wait_s(asking, tried.happened, tried.advice, calls=calls)
            if wait_s is None:
                return _gave_up(asking, tried, last)
            last = tried.error
            held = tried.happened is Happened.HELD
            await (self._upstream.breaker.held(wait_s) if held else self._clock.sleep(wait_s))

    async def resubmit(self, ask: Ask, left: Refused) -> Admitted | Refused:
        """Go on with a request that was left in doubt: its repetition turns out to be safe."""
        happened = Happened.LOST if left.status is None else Happened.FAULT
        await self._upstream.retries.spend(ask.kind, happened)
        return await self.submit(replace(ask, repeatable=True, doubtful=True, leave=None))

    async def _try(self, ask: Ask) -> Admitted | _Failed:
        try:
            response = await self._upstream.ask(ask)
        except CircuitOpen as error:
            return _Failed(error, Happened.HELD, advice=Advice(error.retry_after_s))
        except Unanswered as silence:
            return _of_silence(silence)
        happened = of_status(response.status)
        if happened is None:
            return admission(response)
        return _of_answer(ask, response, happened)


def _gave_up(asking: Asking, tried: _Failed, last: ProxyError | None) -> Refused:
    """What its caller is told: what happened, not that our breaker then opened."""
    error = last if tried.happened is Happened.HELD and last is not None else tried.error
    if asking.policy.harmless and isinstance(error, UpstreamFault):
        error.retryable = True  # drawing again changes nothing
    if not asking.doubtful:
        return Refused(error, tried.status, bisect=tried.happened is Happened.REFUSED)
    return Refused(
        OutcomeUnknown(
            f"The request went out and no usable answer came. {error.detail} "
            "It may have run: look at the model before you send it again."
        ),
        tried.status,
        doubtful=True,
    )


def _of_silence(silence: Unanswered) -> _Failed:
    happened = of_fault(silence.fault)
    if happened is Happened.LOST:
        return _Failed(UpstreamFault(f"The upstream did not answer ({silence.detail})."), happened)
    return _Failed(
        UpstreamUnreachable(
            f"No connection to the upstream ({silence.detail}); nothing was sent. "
            "Is upstream.base_url right, and is it up?"
        ),
        happened,
    )


def _of_answer(ask: Ask, response: Response, happened: Happened) -> _Failed:
    status, said = response.status, detail_of(response)
    advice = advice_of(response.headers)
    error: ProxyError
    if happened is Happened.THROTTLED:
        wait_s = advice.wait_s or DEFAULT_WAIT_S
        advice = Advice(wait_s, advice.again)
        text = f"The upstream asks to slow down ({status}: {said})."
        error = UpstreamThrottled(text, retry_after_s=wait_s)
    elif happened is Happened.FAULT:
        error = UpstreamFault(f"{ask.path} answered {status}: {said}")
    else:
        error = _refusal(ask, status, said)
    return _Failed(error, happened, status, advice)


def _refusal(ask: Ask, status: int, said: str) -> ProxyError:
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
    return error


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
