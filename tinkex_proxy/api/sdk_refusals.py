"""What an SDK is told when it cannot have what it asks for: answers that it obeys.

Errors have the upstream's own shape, `{"detail": …}`, and its own words where it was the upstream
that refused. How SDK 0.38 takes an answer decides which one is given (measured):

* a submit or a question is answered 503 with a jittered `Retry-After` of at most a minute, which it
  obeys to the second (so without jitter all its clients would come back at once);
* a poll is held and then answered 408 with `try_again`: answered 503, it asks again at once, 470
  times a second and future.
"""

import random

import msgspec

from tinkex_proxy.api.problems import status_of
from tinkex_proxy.errors import ProxyError
from tinkex_proxy.runtime.ledger import Answer

__all__ = ["MAX_HOLD_S", "refusal", "try_again"]

# A held poll ends before the 45 s after which the SDK asks for it anew.
MAX_HOLD_S = 40.0
MAX_RETRY_AFTER_S = 60.0


def refusal(error: ProxyError) -> Answer:
    """The answer to a submit or a question that failed."""
    if error.upstream_said is not None:
        status, said = error.upstream_said
        return Answer(status, msgspec.json.encode({"detail": said}))
    headers = {}
    if error.retry_after_s is not None:
        spread = random.uniform(1.0, 1.5)  # noqa: S311 - jitter, not a secret
        seconds = min(MAX_RETRY_AFTER_S, max(1.0, error.retry_after_s * spread))
        headers["retry-after"] = f"{seconds:.0f}"
    return Answer(status_of(error), msgspec.json.encode({"detail": error.detail}), headers)


def try_again(request_id: str | None, state: str, reason: str | None) -> Answer:
    """The answer to a poll of what is not there yet."""
    body = {"type": "try_again", "request_id": request_id, "queue_state": state}
    if reason is not None:
        body["queue_state_reason"] = reason
    return Answer(408, msgspec.json.encode(body))
