"""What `GET /dashboard` tells, as far as the commands show it."""

from typing import Annotated

import msgspec

__all__ = ["Breaker", "Finding", "Lane", "Move", "Recent", "Told", "Trouble", "Verdict", "read"]


class Finding(msgspec.Struct):
    """One sentence about one side."""

    side: str
    grade: str
    says: str


class Verdict(msgspec.Struct):
    """Whose doing it is."""

    side: str
    grade: str
    headline: str
    findings: list[Finding]


class Verdicts(msgspec.Struct):
    """Of the last minute, and of the last quarter of an hour."""

    now: Verdict
    lately: Verdict


class Recent(msgspec.Struct):
    """Figures of the last minute."""

    window_s: float
    ok: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    batches: int
    batched_calls: int
    repeated: int


class Breaker(msgspec.Struct):
    """A circuit breaker."""

    id: str
    state: str
    consecutive_failures: int
    failure_threshold: int
    retry_after_s: float
    counts: dict[str, int]


class Lane(msgspec.Struct):
    """A model's lane."""

    model_id: str
    key_id: str
    depth: int
    held_back: int
    oldest_wait_s: float | None
    on_wire_seq: int | None
    awaiting_results: int
    next_seq: int
    calls: int
    requests: int
    queue_state: str | None


class Trouble(msgspec.Struct):
    """Something that went wrong, on one occasion."""

    kind: str
    what: str
    said: str
    title: str | None
    last_at: float
    count: int


class Move(msgspec.Struct):
    """A breaker moved; `after` is None where it is no more."""

    at: float
    breaker: str
    before: str | None
    after: str | None
    cause: str


class Curve(msgspec.Struct):
    """The losses of a model: slot, time of day, loss."""

    model_id: str
    points: list[tuple[int, float, float]]


class Admission(msgspec.Struct):
    """What all calls hold."""

    calls_in_flight: int


class Told(msgspec.Struct):
    """All of it."""

    now: float
    ready: bool
    obstacle: str | None
    version: dict[str, object]
    verdict: Verdicts
    recent: Recent
    breakers: list[Breaker]
    moves: list[Move]
    lanes: list[Lane]
    admission: Admission
    losses: list[Curve]
    troubles: list[Trouble]
    lanes_left_out: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def upstream(self) -> str:
        """Whom the proxy calls."""
        return str(self.version.get("upstream"))


def read(body: bytes) -> Told:
    """Read an answer.

    Raises:
        ValueError: it is none of `GET /dashboard`.
    """
    return msgspec.json.decode(body, type=Told)
