"""What can go wrong on purpose: the kinds of faults, each a frozen description.

Each fault says what it does, which requests it is about
(`path`), how many of those it hits (`rate`, `count`) and when (`from_s`, `for_s`, `every_s`). So an
outage is a `reset` with a window, a burst of 503 is an `error` with a window and a rate, and there
is no kind for every combination. `plans` reads them, `dice` decides who is hit, `injection` carries
it out.
"""

import fnmatch
from collections.abc import Mapping
from typing import Final, Literal, NoReturn, TypeAlias

import msgspec
from typing_extensions import override

__all__ = [
    "KINDS",
    "PATHS",
    "BadFault",
    "Duplicate",
    "Error",
    "Expire",
    "Fault",
    "Latency",
    "Lost",
    "Paused",
    "Reset",
    "Slow",
]

_TRAINING: Final = tuple(f"/api/v1/{n}" for n in ("forward_backward", "forward", "optim_step"))
# Names for the paths that one most often means; anything else is a pattern like /api/v1/save_*.
PATHS: Final[Mapping[str, tuple[str, ...]]] = {
    "all": ("/api/*",),
    "training": _TRAINING,
    "submits": (
        *_TRAINING,
        "/api/v1/create_model",
        "/api/v1/save_weights*",
        "/api/v1/load_weights",
        "/api/v1/unload_model",
        "/api/v1/asample",
    ),
    "polls": ("/api/v1/retrieve_future",),
    "heartbeats": ("/api/v1/session_heartbeat",),
}
Moment: TypeAlias = Literal["before", "after"]


class BadFault(ValueError):  # noqa: N818 - as BadRequest
    """A description that cannot be carried out; the message names field, kind and remedy."""


class _Common(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all faults can say.

    Attributes:
        path: which requests: a name of PATHS, or a pattern with `*`; several are joined with `+`.
        rate: share of these requests that are hit.
        count: most requests that are hit; None is any number.
        from_s: when it begins, in seconds since the plan was set.
        for_s: how long it lasts; None is for good.
        every_s: how often it begins again; None is once.
    """

    path: str = "all"
    rate: float = 1.0
    count: int | None = None
    from_s: float = 0.0
    for_s: float | None = None
    every_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse what would never hit, or not what was meant."""
        _between("rate", self.rate, 0, 1)
        _at_least("count", self.count, 1)
        _at_least("from_s", self.from_s, 0)
        _more_than("for_s", self.for_s, 0)
        if self.every_s is not None and (self.for_s is None or self.every_s <= self.for_s):
            _refuse("every_s", self.every_s, "longer than for_s, which it needs")
        for part in self.path.split("+"):
            if part not in PATHS and not part.startswith("/"):
                names = ", ".join(PATHS)
                _refuse("path", part, f"one of {names}, or a pattern that begins with /")

    def covers(self, path: str) -> bool:
        """Whether it is about requests to a path."""
        patterns = [one for part in self.path.split("+") for one in PATHS.get(part, (part,))]
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)

    def is_on(self, elapsed_s: float) -> bool:
        """Whether its window is open so many seconds after the plan was set."""
        since = elapsed_s - self.from_s
        if since < 0 or self.for_s is None:
            return since >= 0
        return (since if self.every_s is None else since % self.every_s) < self.for_s


class Latency(_Common, frozen=True, tag="latency", tag_field="kind"):
    """Wait before acting: `delay_s`, and up to `jitter_s` more, evenly spread."""

    delay_s: float = 0.0
    jitter_s: float = 0.0

    @override
    def __post_init__(self) -> None:
        """Refuse a wait that is none."""
        super().__post_init__()
        _at_least("delay_s", self.delay_s, 0)
        _at_least("jitter_s", self.jitter_s, 0)
        if self.delay_s + self.jitter_s == 0:
            _refuse("delay_s", 0, "more than 0, or jitter_s has to be")


class Error(_Common, frozen=True, tag="error", tag_field="kind"):
    """Answer with a status, `before` acting or `after`; with `retry_after_s` it says when."""

    status: int = 503
    when: Moment = "before"
    retry_after_s: float | None = None

    @override
    def __post_init__(self) -> None:
        """Refuse a status that is no error."""
        super().__post_init__()
        _between("status", self.status, 400, 599)
        _at_least("retry_after_s", self.retry_after_s, 0)


class Reset(_Common, frozen=True, tag="reset", tag_field="kind"):
    """Reset the connection `before` acting, `after`, or `midway` through the answer's body."""

    when: Literal["before", "after", "midway"] = "before"


class Lost(_Common, frozen=True, tag="lost", tag_field="kind"):
    """Never answer, `before` acting or `after`; after `hold_s` the connection is reset."""

    when: Moment = "after"
    hold_s: float | None = None

    @override
    def __post_init__(self) -> None:
        """Refuse a hold that is none."""
        super().__post_init__()
        _more_than("hold_s", self.hold_s, 0)


class Duplicate(_Common, frozen=True, tag="duplicate", tag_field="kind"):
    """Deliver the request twice, as a gateway that repeats does; the second answer is given.

    With `lag_s` the first answer is given, and the copy comes so long after it: requests that were
    sent later overtake it.
    """

    lag_s: float = 0.0

    @override
    def __post_init__(self) -> None:
        """Refuse a copy that comes before its original."""
        super().__post_init__()
        _at_least("lag_s", self.lag_s, 0)


class Slow(_Common, frozen=True, tag="slow", tag_field="kind"):
    """Send the answer's body, take the request's, or both, at so many bytes a second."""

    bytes_per_s: float
    body: Literal["answer", "request", "both"] = "answer"

    @override
    def __post_init__(self) -> None:
        """Refuse to stand still."""
        super().__post_init__()
        _more_than("bytes_per_s", self.bytes_per_s, 0)


class Paused(_Common, frozen=True, tag="paused", tag_field="kind"):
    """Hold polls for `hold_s`, then answer that the queue is paused, and why."""

    path: str = "polls"
    state: Literal["paused_capacity", "paused_rate_limit"] = "paused_capacity"
    reason: str | None = None
    hold_s: float = 1.0

    @override
    def __post_init__(self) -> None:
        """Refuse to hold for less than no time."""
        super().__post_init__()
        _at_least("hold_s", self.hold_s, 0)


class Expire(_Common, frozen=True, tag="expire", tag_field="kind"):
    """End all sessions, and their models with them, before acting; once, if not told otherwise."""

    count: int | None = 1


Fault: TypeAlias = Latency | Error | Reset | Lost | Duplicate | Slow | Paused | Expire
KINDS: Final[Mapping[str, type[Fault]]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (Latency, Error, Reset, Lost, Duplicate, Slow, Paused, Expire)
}


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        _refuse(name, value, f"between {low} and {high}")


def _at_least(name: str, value: float | None, low: float) -> None:
    if value is not None and not low <= value < float("inf"):
        _refuse(name, value, f"at least {low}")


def _more_than(name: str, value: float | None, low: float) -> None:
    if value is not None and not low < value < float("inf"):
        _refuse(name, value, f"more than {low}")


def _refuse(name: str, value: object, wanted: str) -> NoReturn:
    raise BadFault(f"{name} is {value!r}; it must be {wanted}")
