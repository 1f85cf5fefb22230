"""Waiting for an admitted request: the long poll on `retrieve_future`.

The upstream answers one of (see the SDK's `api_future_impl.py`): the result; `try_again`, as 200 or
as 408, with a queue state; `{"error", "category"}`, failed for good; 410, the promise is gone; 400,
which is spurious up to three times and is also how SkyRL reports a failed request; 402, a billing
pause; 429; or 5xx. Nothing is ever re-submitted from here: a poll only asks.

A poll that failed goes again as its row of `core.retry` says. It neither earns the key budget for
repetitions nor draws on it: one that is told "not yet" is no repetition, and a result that nobody
fetches for want of budget would be lost.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from tinkex_proxy.core.advice import NO_ADVICE, Advice, advice_of
from tinkex_proxy.core.outcome import Fault, Operation
from tinkex_proxy.core.retry import POLICIES, Happened, Kind, of_fault, of_status
from tinkex_proxy.core.timeline import Held, Part, Timeline
from tinkex_proxy.errors import ApiKeyRefused, CircuitOpen, OutcomeUnknown, UpstreamFailed
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.transport import Response
from tinkex_proxy.runtime.upstream import JSON, Ask, Unanswered, Upstream, detail_of
from tinkex_proxy.runtime.whose import NOBODY, Behalf

__all__ = ["LARGE_BYTES", "QUEUE_STATES", "Poller", "QueueState", "Waiters"]

# The SDK takes a 400 as spurious three times, then as the request's own failure.
SPURIOUS_400 = 3
_POLICY = POLICIES[Kind.POLL]
# Shorter than the row's patience: an upstream that answers 500 to this poll for so long never will
# answer it (SkyRL 0.3.0 does so when a result holds a NaN). 502 to 504 are a gateway's words for an
# upstream that is away.
FAULT_PATIENCE_S = 300.0
_GATEWAY = frozenset({502, 503, 504})
# An upstream that answers "not yet" at once must not be asked in a tight loop: such polls are
# spaced from 20 ms, doubling to a second.
FIRST_PAUSE_S, MAX_PAUSE_S = 0.02, 1.0
# What an upstream says of a request that it holds; any other word is counted as the last.
QUEUE_STATES: Final = ("active", "paused_capacity", "paused_rate_limit", "other")
# To be told of the head of an answer apart from its body costs a poll 40 us, a third of what it
# costs at all. A result smaller than this comes with its head, or in the next few packets.
LARGE_BYTES: Final = 64 * 1024


class QueueState(msgspec.Struct, frozen=True):
    """Where the upstream says the request stands."""

    state: str
    reason: str | None


class _Glance(msgspec.Struct):
    """What distinguishes the answers; msgspec skips the rest without building it."""

    type: str | None = None
    error: object = None
    category: str | None = None
    status: str | None = None
    queue_state: str | None = None
    queue_state_reason: str | None = None


class Waiters(msgspec.Struct, frozen=True):
    """Who waits for a result.

    Attributes:
        timelines: theirs; what they wait for is noted there.
        behalf: on whose behalf it is asked for.
        large: whether it may have `LARGE_BYTES` or more.
    """

    timelines: Sequence[Timeline] = ()
    behalf: Behalf = NOBODY
    large: bool = False


NO_WAITERS: Final = Waiters()


class _Progress(msgspec.Struct, eq=False):
    """What a sequence of polls has seen."""

    since: float
    waiters: Waiters
    head_at: float | None = None
    state: str | None = None
    spurious: int = 0
    early: int = 0
    failures: int = 0
    failing_since: float | None = None
    faulty_since: float | None = None
    wait_s: float = 0.0


class Poller:
    """Polls one upstream.

    Args:
        upstream: whom to ask.
        clock: measures and sleeps.
        hold_s: how long one poll is held before it is asked anew; the SDK's figure is 45 s.
    """

    def __init__(self, upstream: Upstream, clock: Clock, *, hold_s: float = 45.0) -> None:
        self._upstream = upstream
        self._clock = clock
        self._hold_s = hold_s
        self._waiting: set[_Progress] = set()

    @property
    def pending(self) -> int:
        """How many results are awaited."""
        return len(self._waiting)

    @property
    def oldest(self) -> float | None:
        """Since when the oldest of them has been; None without any."""
        return min((progress.since for progress in self._waiting), default=None)

    def states(self) -> Mapping[str, int]:
        """How many requests the upstream was last heard to hold in each of `QUEUE_STATES`."""
        counts = Counter(progress.state for progress in self._waiting)
        return {state: counts[state] for state in QUEUE_STATES}

    def reconfigure(self, *, hold_s: float) -> None:
        """Let the polls for results that are waited for from now on be held for so long."""
        self._hold_s = hold_s

    async def result(
        self,
        request_id: str,
        *,
        accept: str = JSON,
        on_state: Callable[[QueueState], None] = lambda _: None,
        waiters: Waiters = NO_WAITERS,
    ) -> Response:
        """Wait until the request has ended and give its result.

        Args:
            request_id: what the submit was answered with.
            accept: media type wanted for the result.
            on_state: told each queue state the upstream reports.
            waiters: who waits for it.

        Raises:
            UpstreamFailed: the upstream failed the request, for good.
            OutcomeUnknown: the upstream no longer knows it, or stayed silent too long.
            ApiKeyRefused: the key stopped being good.
        """
        progress = _Progress(self._clock.now(), waiters)
        ask = Ask(
            operation=Operation.POLL,
            path="/api/v1/retrieve_future",
            body=msgspec.json.encode({"request_id": request_id, "allow_metadata_only": False}),
            accept=accept,
            timeout_s=self._hold_s,
            patience=True,
            on_head=partial(self._heard, progress) if waiters.large else None,
            behalf=waiters.behalf,
        )

        def noted(state: QueueState) -> None:
            self._note(progress, state)
            on_state(state)

        self._waiting.add(progress)
        self._enter(progress, Part.COMPUTE, self._clock.now())
        try:
            response = await self._poll(ask, progress, noted)
            if progress.head_at is not None:
                self._enter(progress, Part.DOWNLOAD, progress.head_at)
            return response
        finally:
            self._enter(progress, Part.PROXY, self._clock.now())
            self._waiting.discard(progress)

    def _heard(self, progress: _Progress) -> None:
        """The head of an answer is there; the first word of each poll counts."""
        if progress.head_at is None:
            progress.head_at = self._clock.now()

    def _note(self, progress: _Progress, state: QueueState) -> None:
        """The upstream holds the request back, or has ceased to."""
        progress.state = state.state if state.state in QUEUE_STATES else QUEUE_STATES[-1]
        if state.state != "active":
            now = self._clock.now()
            for timeline in progress.waiters.timelines:
                timeline.spent(Part.UPSTREAM_QUEUE, now)
                timeline.held = Held(state.state, state.reason)

    @staticmethod
    def _enter(progress: _Progress, part: Part, now: float) -> None:
        for timeline in progress.waiters.timelines:
            timeline.enter(part, now)

    async def _poll(
        self, ask: Ask, progress: _Progress, on_state: Callable[[QueueState], None]
    ) -> Response:
        while True:
            asked = self._clock.now()
            progress.head_at = None
            try:
                response = await self._upstream.ask(ask)
            except CircuitOpen as error:
                advice = Advice(error.retry_after_s)
                self._failed(progress, Happened.HELD, error.detail, advice)
                await self._upstream.breaker.held(progress.wait_s)
                progress.wait_s = 0.0
            except Unanswered as silence:
                if silence.fault is not Fault.TIMEOUT:
                    self._failed(progress, of_fault(silence.fault), silence.detail)
            else:
                if self._ended(response, progress, on_state):
                    return response
                self._pace(progress, self._clock.now() - asked)
            if progress.wait_s > 0:
                await self._clock.sleep(progress.wait_s)
                progress.wait_s = 0.0

    def _ended(
        self, response: Response, progress: _Progress, on_state: Callable[[QueueState], None]
    ) -> bool:
        """Whether `response` is the result; notes in `progress` how long to wait if not."""
        status = response.status
        if status in {200, 408}:
            progress.failing_since = progress.faulty_since = None
            progress.failures = 0
            return _is_result(response, on_state)
        if status == 400:
            progress.spurious += 1
            if progress.spurious > SPURIOUS_400:
                raise UpstreamFailed(detail_of(response), category="unknown")
            calls = progress.waiters.behalf.calls
            self._upstream.retries.note(Kind.POLL, Happened.REFUSED, calls=calls)
            progress.wait_s = 0.05 * progress.spurious
        elif status in {401, 403}:
            raise ApiKeyRefused(f"The upstream refused the API key while polling ({status}).")
        elif status in {404, 410}:
            raise OutcomeUnknown(
                f"The upstream no longer knows this request ({status}: {detail_of(response)}). "
                "It was admitted and may have run; look at the model before you send it again.",
                forgotten=True,
            )
        else:
            said = f"{status}: {detail_of(response)}"
            if status >= 500 and status not in _GATEWAY:
                self._check_fault(progress, said)
            happened = of_status(status) or Happened.BARRED
            self._failed(progress, happened, said, advice_of(response.headers))
        return False

    def _check_fault(self, progress: _Progress, said: str) -> None:
        """Give up on a request that the upstream stumbles over again and again."""
        now = self._clock.now()
        progress.faulty_since = now if progress.faulty_since is None else progress.faulty_since
        if now - progress.faulty_since > FAULT_PATIENCE_S:
            raise _lost(FAULT_PATIENCE_S, said)

    def _pace(self, progress: _Progress, held_s: float) -> None:
        progress.early = 0 if held_s >= MAX_PAUSE_S else min(progress.early + 1, 16)
        pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** (progress.early - 1)) - held_s
        progress.wait_s = max(progress.wait_s, pause_s)

    def _failed(
        self, progress: _Progress, happened: Happened, detail: str, advice: Advice = NO_ADVICE
    ) -> None:
        now = self._clock.now()
        progress.failing_since = now if progress.failing_since is None else progress.failing_since
        if now - progress.failing_since > _POLICY.patience_s:
            raise _lost(_POLICY.patience_s, detail)
        retries = self._upstream.retries
        if happened is not Happened.HELD:  # else nothing was sent
            retries.note(Kind.POLL, happened, calls=progress.waiters.behalf.calls)
        progress.wait_s = retries.drawn(_POLICY, progress.failures, advice)
        progress.failures += 1


def _lost(seconds: float, detail: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"The result could not be fetched for {seconds:g} s (last: {detail}). "
        "The request was admitted and may have run."
    )


def _is_result(response: Response, on_state: Callable[[QueueState], None]) -> bool:
    if response.content_type != JSON:
        return response.status == 200
    try:
        glance = msgspec.json.decode(response.body, type=_Glance)
    except msgspec.DecodeError:
        return response.status == 200
    if response.status == 408 or glance.type == "try_again":
        if glance.queue_state is not None:
            on_state(QueueState(glance.queue_state, glance.queue_state_reason))
        return False
    if glance.error is not None:  # as in the SDK: whoever has an error has no result
        raise UpstreamFailed(_text(glance.error), category=glance.category or "unknown")
    return glance.status not in {"complete_metadata", "pending"}


def _text(error: object) -> str:
    return error if isinstance(error, str) else msgspec.json.encode(error).decode()[:500]
