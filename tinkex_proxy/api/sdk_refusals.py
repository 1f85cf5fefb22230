"""What an SDK is told when it cannot have what it asks for: answers that it obeys.

Errors have the upstream's own shape, `{"detail": …}`, and its own words where it was the upstream
that refused. How SDK 0.38 takes an answer decides which one is given (measured):

* a submit or a question is answered 503 with a `Retry-After` of at most a minute, which it obeys to
  the millisecond (so there is jitter in it, else all its clients would come back at once);
* a sample is answered 429: a 503 makes the SDK repeat all its samples in bursts, after a 429 it
  tries about one a second until one passes;
* a poll is held and then answered 408 with `try_again`: answered 503, it asks again at once, 470
  times a second and future.
"""

import random

import msgspec

from tinkex_proxy.api.problems import status_of
from tinkex_proxy.errors import ProxyError
from tinkex_proxy.runtime.ledger import Answer

__all__ = ["MAX_HOLD_S", "held_for", "refusal", "spread", "try_again"]

# A held poll ends before the 45 s after which the SDK asks for it anew.
MAX_HOLD_S = 40.0
MAX_RETRY_AFTER_S = 60.0
# Of the longest waits, how much is left to chance.
LEAST_OF_LONGEST = 0.75


def refusal(error: ProxyError, *, sample: bool = False) -> Answer:
    """The answer to a submit or a question that failed.

    Args:
        error: why.
        sample: whether it was a sample.
    """
    if error.upstream_said is not None:
        status, said = error.upstream_said
        return Answer(status, msgspec.json.encode({"detail": said}))
    status, headers = status_of(error), {}
    if error.retry_after_s is not None:
        seconds = spread(error.retry_after_s)
        headers["retry-after-ms"] = f"{seconds * 1000:.0f}"
        headers["retry-after"] = f"{max(1.0, seconds):.0f}"
        status = 429 if sample and status == 503 else status
    return Answer(status, msgspec.json.encode({"detail": error.detail}), headers)


def spread(seconds: float) -> float:
    """A wait of `seconds` to one and a half times that, at most a minute, never all the same."""
    longest = min(MAX_RETRY_AFTER_S, max(1.0, seconds) * 1.5)
    least = min(max(1.0, seconds), MAX_RETRY_AFTER_S * LEAST_OF_LONGEST)
    return random.uniform(least, longest)  # noqa: S311 - jitter, not a secret


def held_for(seconds: float | None) -> float:
    """How long a poll is held that may go up in `seconds`."""
    longest = random.uniform(LEAST_OF_LONGEST, 1.0) * MAX_HOLD_S  # noqa: S311 - as above
    return min(spread(seconds or 1.0), longest)


def try_again(request_id: str | None, state: str, reason: str | None) -> Answer:
    """The answer to a poll of what is not there yet."""
    body = {"type": "try_again", "request_id": request_id, "queue_state": state}
    if reason is not None:
        body["queue_state_reason"] = reason
    return Answer(408, msgspec.json.encode(body))
