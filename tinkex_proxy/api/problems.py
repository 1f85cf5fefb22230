"""Typed errors to HTTP, in one place: RFC 9457 problem details.

The closed list of codes is `STATUS`; `docs/errors.md` explains each. What is not in the list is a
bug of ours: it becomes `internal_error` and its text stays in the log.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from tinkex_proxy.errors import BadConfiguration, ProxyError, UpstreamFailed
from tinkex_proxy.runtime.ledger import Answer

__all__ = ["PROBLEM_JSON", "STATUS", "problem_answer", "problem_fields", "status_of"]

PROBLEM_JSON: Final = "application/problem+json"

STATUS: Final[Mapping[str, tuple[int, str]]] = {
    "invalid_json": (400, "The body is not JSON"),
    "invalid_request": (422, "The request is not valid"),
    "payload_too_large": (413, "The body is too large"),
    "body_stalled": (408, "The body stopped coming"),
    "foreign_host": (421, "Not this host"),
    "foreign_origin": (403, "Cross-origin request refused"),
    "route_not_found": (404, "No such path"),
    "method_not_allowed": (405, "Wrong method for this path"),
    "bad_configuration": (422, "The configuration cannot be used"),
    "api_key_missing": (401, "No API key"),
    "api_key_refused": (401, "API key refused by the upstream"),
    "too_many_keys": (503, "Too many API keys in use"),
    "model_not_found": (404, "No such model"),
    "model_gone": (410, "The model is gone"),
    "future_not_found": (404, "No such call"),
    "idempotency_key_reused": (409, "Idempotency-Key used for another call"),
    "deadline_exceeded": (504, "The deadline passed"),
    "circuit_open": (503, "Circuit breaker open"),
    "overloaded": (503, "Too much at once"),
    "draining": (503, "Shutting down"),
    "journal_unavailable": (503, "The journal cannot be written"),
    "upstream_unreachable": (502, "Upstream unreachable"),
    "upstream_fault": (502, "Upstream fault"),
    "upstream_throttled": (429, "Upstream asks to slow down"),
    "upstream_refused": (422, "Refused by the upstream"),
    "upstream_conflict": (409, "Conflict at the upstream"),
    "upstream_failed": (502, "Failed by the upstream"),
    "outcome_unknown": (504, "It is not known whether the request ran"),
    "internal_error": (500, "A fault in the proxy"),
}


def status_of(error: ProxyError) -> int:
    """The HTTP status of an error; a request that the user spoilt is not the upstream's fault."""
    if isinstance(error, UpstreamFailed) and error.category == "user":
        return 422
    return STATUS[error.code][0]


def problem_fields(error: ProxyError, *, instance: str, request_id: str) -> dict[str, object]:
    """The members of the problem document."""
    fields: dict[str, object] = {
        "type": f"urn:tinkex-proxy:problem:{error.code}",
        "title": STATUS[error.code][1],
        "status": status_of(error),
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "retryable": error.retryable,
        "request_id": request_id,
    }
    if error.pointer is not None:
        fields["pointer"] = error.pointer
    if isinstance(error, UpstreamFailed):
        fields["category"] = error.category
    if isinstance(error, BadConfiguration):
        fields["problems"] = error.problems
    return fields


def problem_answer(error: ProxyError, *, instance: str, request_id: str) -> Answer:
    """The whole answer, with `Retry-After` where waiting helps."""
    headers = {"content-type": PROBLEM_JSON, "cache-control": "no-store"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    fields = problem_fields(error, instance=instance, request_id=request_id)
    return Answer(status_of(error), msgspec.json.encode(fields), headers, retryable=error.retryable)
