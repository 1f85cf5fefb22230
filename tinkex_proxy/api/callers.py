"""What a caller says in headers, and how long a call is waited for."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from tinkex_proxy.api.asgi import CallerLeft
from tinkex_proxy.api.watch import Leaving, Until
from tinkex_proxy.errors import ApiKeyRefused, DeadlineExceeded, InvalidRequest, OutcomeUnknown
from tinkex_proxy.runtime.ledger import Answer, Entry
from tinkex_proxy.runtime.trainer import Ticket

__all__ = [
    "CallerLeft",
    "Wishes",
    "coalesce_of",
    "cut_off_error",
    "digest_of",
    "key_of",
    "wait_for",
    "wishes_of",
]

MAX_KEY_LENGTH = 255


class Wishes(msgspec.Struct, frozen=True):
    """The headers that steer a call.

    Attributes:
        timeout_s: `X-Request-Timeout`, or the configured default, or None.
        idempotency_key: `Idempotency-Key`, or None.
        respond_async: whether `Prefer: respond-async` was sent.
        coalesce: False for `X-Tinkex-Coalesce: off`.
    """

    timeout_s: float | None
    idempotency_key: str | None
    respond_async: bool
    coalesce: bool


def key_of(headers: Mapping[str, str]) -> str | None:
    """The caller's own API key, from `X-API-Key` or `Authorization: Bearer`.

    Raises:
        ApiKeyRefused: it is no text that a header can carry on.
    """
    key = headers.get("x-api-key", "").strip()
    if not key:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else ""
    if not key.isascii():
        raise ApiKeyRefused("The API key has characters that no key has: it must be ASCII.")
    return key or None


def wishes_of(headers: Mapping[str, str], *, default_timeout_s: float | None) -> Wishes:
    """Read them.

    Raises:
        InvalidRequest: a header's value makes no sense.
    """
    key = headers.get("idempotency-key", "").strip() or None
    if key is not None and len(key) > MAX_KEY_LENGTH:
        raise InvalidRequest(
            f"Idempotency-Key has {len(key)} characters; the limit is {MAX_KEY_LENGTH}."
        )
    return Wishes(
        timeout_s=_seconds(headers.get("x-request-timeout"), default_timeout_s),
        idempotency_key=key,
        respond_async="prefer" in headers and _prefers_async(headers["prefer"]),
        coalesce=coalesce_of(headers, default=True),
    )


def _prefers_async(said: str) -> bool:
    return "respond-async" in {one.strip().lower() for one in said.split(",")}


def coalesce_of(headers: Mapping[str, str], *, default: bool) -> bool:
    """Whether a call may share a request: `X-Tinkex-Coalesce`, or what holds without it.

    Raises:
        InvalidRequest: it is neither on nor off.
    """
    said = headers.get("x-tinkex-coalesce", "").strip().lower()
    if said not in {"", "on", "off"}:
        raise InvalidRequest(f"X-Tinkex-Coalesce is {said!r}; say on or off.")
    return said == "on" if said else default


def _seconds(said: str | None, default_s: float | None) -> float | None:
    if said is None:
        return default_s
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise InvalidRequest(
            f"X-Request-Timeout is {said!r}; say a number of seconds above 0, such as 30."
        )
    return seconds


def digest_of(method: str, path: str, body: bytes) -> bytes:
    """What makes two calls the same call."""
    digest = hashlib.blake2b(f"{method}\0{path}\0".encode())
    digest.update(body)  # megabytes, which need no copy to be read
    return digest.digest()


async def wait_for(
    entry: Entry,
    ticket: Ticket | None,
    leaving: Leaving,
    *,
    timeout_s: float | None,
    promise: Callable[[], Awaitable[None]],
) -> Answer:
    """Wait for a call's answer as long as its caller does.

    Args:
        entry: the call.
        ticket: takes its work back if the caller leaves early; None for a caller who only repeats.
        leaving: tells when the caller hangs up.
        timeout_s: how long the caller waits, or None.
        promise: has the answer kept for a caller that is told where it will be.

    Raises:
        CallerLeft: the caller hung up.
        DeadlineExceeded: the caller's time is over.
        OutcomeUnknown: the call was ended by our own end, wherever it was.
    """
    entry.waiters += 1
    try:
        with Until(entry.task, leaving, timeout_s) as end:
            await end.came
    finally:
        entry.waiters -= 1
    if entry.task.cancelled():
        raise cut_off_error()
    if entry.task.done():
        return entry.task.result()
    taken_back = ticket is not None and entry.waiters == 0 and ticket.withdraw()
    if taken_back:
        entry.withdrawn = True
        entry.task.cancel()
    else:
        entry.wanted = True
    if end.left:
        raise CallerLeft
    if taken_back:
        raise DeadlineExceeded("The deadline passed before the call left; nothing was sent.")
    await promise()
    raise DeadlineExceeded(
        "The deadline passed while the upstream was at work; the call goes on and counts. "
        f"Its answer will be at GET /v1/futures/{entry.id}."
    )


def cut_off_error() -> OutcomeUnknown:
    """The error for a call that our own end cut off."""
    return OutcomeUnknown(
        "The proxy stopped before the answer was there. The call may have run; look at the model "
        "before you send it again."
    )
