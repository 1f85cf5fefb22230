"""Everything that can go wrong, typed by fault and remedy.

One class is one `code` of the closed list in `docs/errors.md`. Whoever raises says what happened in
`detail` (a sentence that names the field or the upstream, the value's kind, and the remedy) and
nothing else: status, title and media type are decided once, in `api/problems.py`.
"""

from typing import ClassVar

from typing_extensions import override

__all__ = [
    "ApiKeyMissing",
    "ApiKeyRefused",
    "BadConfiguration",
    "BodyStalled",
    "CircuitOpen",
    "DeadlineExceeded",
    "Draining",
    "ForeignHost",
    "ForeignOrigin",
    "FutureNotFound",
    "IdempotencyKeyReused",
    "InvalidJson",
    "InvalidRequest",
    "JournalUnavailable",
    "MethodNotAllowed",
    "ModelGone",
    "ModelNotFound",
    "OutcomeUnknown",
    "Overloaded",
    "PayloadTooLarge",
    "ProxyError",
    "RouteNotFound",
    "TooManyKeys",
    "UpstreamConflict",
    "UpstreamFailed",
    "UpstreamFault",
    "UpstreamRefused",
    "UpstreamThrottled",
    "UpstreamUnreachable",
]


class ProxyError(Exception):
    """A failure that a caller is told about.

    Attributes:
        detail: one or two sentences for a person; never a secret, never a stack trace.
        retryable: whether the same call may be sent again as it is, and could then succeed; a
            class says what usually holds, and whoever knows better sets it.
        retry_after_s: seconds worth waiting before that, or None where waiting does not help.
        pointer: RFC 6901 JSON pointer to the offending field of the body, or None.
        upstream_said: status and text of the upstream's own refusal, where that is what this is.
    """

    code: ClassVar[str] = "internal_error"
    retryable: bool = False
    upstream_said: tuple[int, str] | None = None

    def __init__(
        self, detail: str, *, retry_after_s: float | None = None, pointer: str | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.pointer = pointer

    @override
    def __str__(self) -> str:
        return self.detail


class InvalidJson(ProxyError):
    """The body is not JSON; `detail` says at which byte."""

    code = "invalid_json"


class InvalidRequest(ProxyError):
    """The body is JSON but not a call we can make; `pointer` says where."""

    code = "invalid_request"


class PayloadTooLarge(ProxyError):
    """The body exceeds `server.max_body_bytes`."""

    code = "payload_too_large"


class BodyStalled(ProxyError):
    """Nothing of the body came for `admission.body_timeout_s`."""

    code = "body_stalled"
    retryable = True


class ForeignHost(ProxyError):
    """The `Host` header names a host that is not ours (DNS rebinding)."""

    code = "foreign_host"


class ForeignOrigin(ProxyError):
    """A web page of another origin sent the request."""

    code = "foreign_origin"


class RouteNotFound(ProxyError):
    """No such path here."""

    code = "route_not_found"


class MethodNotAllowed(ProxyError):
    """The path exists, with another method."""

    code = "method_not_allowed"


class BadConfiguration(ProxyError):
    """The configuration that was to be read again cannot be used; nothing has changed.

    Attributes:
        problems: one sentence for each thing wrong.
    """

    code = "bad_configuration"

    def __init__(self, detail: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(detail)
        self.problems = problems


class ApiKeyMissing(ProxyError):
    """Neither the caller nor the configuration has an API key, and the upstream wants one."""

    code = "api_key_missing"


class ApiKeyRefused(ProxyError):
    """The upstream answered 401 or 403."""

    code = "api_key_refused"


class TooManyKeys(ProxyError):
    """More API keys in use than the proxy keeps sessions for."""

    code = "too_many_keys"
    retryable = True


class ModelNotFound(ProxyError):
    """No lane for this model id under this key."""

    code = "model_not_found"


class ModelGone(ProxyError):
    """The model died with its upstream session, or was unloaded."""

    code = "model_gone"


class FutureNotFound(ProxyError):
    """No call with this id under this key, or its answer is past its retention."""

    code = "future_not_found"


class IdempotencyKeyReused(ProxyError):
    """The same `Idempotency-Key` came with another body."""

    code = "idempotency_key_reused"


class DeadlineExceeded(ProxyError):
    """The caller's own `X-Request-Timeout` passed."""

    code = "deadline_exceeded"


class CircuitOpen(ProxyError):
    """The breaker of this upstream and key lets nothing through; nothing was sent."""

    code = "circuit_open"
    retryable = True


class Overloaded(ProxyError):
    """A bound of `admission` is used up: the call was shed, and nothing of it sent."""

    code = "overloaded"
    retryable = True


class Draining(ProxyError):
    """The proxy is shutting down and takes no new work."""

    code = "draining"
    retryable = True


class JournalUnavailable(ProxyError):
    """The journal cannot be written, and `journal.on_failure` says that nothing goes on without."""

    code = "journal_unavailable"
    retryable = True


class UpstreamUnreachable(ProxyError):
    """No connection to the upstream; nothing was sent, nothing ran."""

    code = "upstream_unreachable"
    retryable = True


class UpstreamFault(ProxyError):
    """The upstream answered 5xx, or what it answered is not its protocol."""

    code = "upstream_fault"


class UpstreamThrottled(ProxyError):
    """The upstream answered 429 or 402; nothing ran."""

    code = "upstream_throttled"
    retryable = True


class UpstreamRefused(ProxyError):
    """The upstream refused the request at submit with a 4xx; nothing ran."""

    code = "upstream_refused"


class UpstreamConflict(ProxyError):
    """The upstream answered 409: a sequence number or a checkpoint name is taken."""

    code = "upstream_conflict"


class UpstreamFailed(ProxyError):
    """The upstream admitted the request and then failed it.

    Attributes:
        category: `user`, `server` or `unknown`, as the upstream says.
    """

    code = "upstream_failed"

    def __init__(self, detail: str, *, category: str = "unknown") -> None:
        super().__init__(detail)
        self.category = category


class OutcomeUnknown(ProxyError):
    """The request went out and no answer came; it may or may not have run.

    Attributes:
        forgotten: whether that is because the upstream no longer knows the request.
    """

    code = "outcome_unknown"

    def __init__(self, detail: str, *, forgotten: bool = False) -> None:
        super().__init__(detail)
        self.forgotten = forgotten
