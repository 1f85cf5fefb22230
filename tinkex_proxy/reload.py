"""Reading the configuration again while the proxy runs.

The same layers are read with the same checks as at the start. Every setting is either `LIVE`, and
changes then, or in `RESTART`, with the reason why it does not. Either everything that is live is
applied, or, where the configuration is bad, nothing at all: first every part's new
settings are made, and only when none of them has failed the parts are told, in one step in which no
call runs.

A setting that needs a restart and was changed stays as it is, and is named with every reload until
the restart. `Reloads.settings` is always what is in force.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from tinkex_proxy.config import ConfigError, Settings, find_contradictions, find_warnings, masked
from tinkex_proxy.errors import BadConfiguration

__all__ = ["LIVE", "RESTART", "Change", "Outcome", "Reloads", "reload_table"]

T = TypeVar("T")

_LISTENER: Final = "the listener is opened once"
_UPSTREAM: Final = "sessions, models and sequence numbers belong to one upstream and one key"
_TRANSPORT: Final = "the HTTP client is made once, and requests are on its connections"
_ROUTES: Final = "routes and metrics are made once"
_JOURNAL: Final = "the journal is opened once"
_EXPORT: Final = "what sends spans is made once"
_BUDGET: Final = "what was sent again is counted against it"

RESTART: Final = {
    "server.host": _LISTENER,
    "server.port": _LISTENER,
    "server.uds": _LISTENER,
    "upstream.base_url": _UPSTREAM,
    "upstream.api_key": _UPSTREAM,
    "upstream.transport": _TRANSPORT,
    "upstream.connect_timeout_s": _TRANSPORT,
    "upstream.flavour": "requests that wait are encoded already",
    "upstream.deduplicates": "what the upstream does has been found out",
    "upstream.retry_budget_ratio": _BUDGET,
    "upstream.retry_budget_per_s": _BUDGET,
    "journal.enabled": _JOURNAL,
    "journal.state_dir": _JOURNAL,
    "journal.sync": _JOURNAL,
    "journal.on_failure": _JOURNAL,
    "journal.max_bytes": _JOURNAL,
    "sdk.mode": "a model of an SDK has a lane from its first call on, or never",
    "tracing.endpoint": _EXPORT,
    "tracing.headers": _EXPORT,
    "metrics.enabled": _ROUTES,
    "metrics.histogram_max_size": "bins that have been made cannot be made again",
}

LIVE: Final = frozenset(
    {
        "server.allowed_hosts",
        "server.max_body_bytes",
        "server.drain_pause_ms",
        "server.drain_linger_ms",
        "upstream.request_timeout_s",
        "upstream.poll_timeout_s",
        "upstream.submit_retry_s",
        "upstream.heartbeat_interval_s",
        "upstream.max_keys",
        "upstream.extra_loss_fns",
        "circuit_breaker.enabled",
        "circuit_breaker.failure_threshold",
        "circuit_breaker.adaptive_threshold",
        "circuit_breaker.timeout_ms",
        "circuit_breaker.max_timeout_ms",
        "circuit_breaker.half_open_max_calls",
        "circuit_breaker.success_threshold",
        "circuit_breaker.failure_rate",
        "circuit_breaker.minimum_calls",
        "circuit_breaker.window_s",
        "circuit_breaker.slow_call_ms",
        "circuit_breaker.slow_call_rate",
        "admission.max_bytes",
        "admission.max_calls",
        "admission.max_lane_depth",
        "admission.body_timeout_s",
        "batching.enabled",
        "batching.window_ms",
        "batching.max_batch_size",
        "batching.max_datums",
        "batching.max_bytes",
        "batching.idle_flush_ms",
        "batching.preferred_sizes",
        "metrics.snapshot_interval_ms",
        "sdk.coalesce",
        "calls.default_timeout_s",
        "calls.retention_s",
        "calls.max_kept_answers",
        "calls.max_kept_bytes",
        "calls.shutdown_grace_s",
        "log.level",
        "log.format",
        "tracing.sample_ratio",
    }
)


@dataclass(frozen=True, slots=True)
class Change:
    """A setting whose value differs from the one in force; secrets are masked.

    Attributes:
        setting: its full name.
        before: its value in force, ready for JSON.
        after: its value in the configuration that was read.
        why: why it needs a restart, or None where it was changed.
    """

    setting: str
    before: object
    after: object
    why: str | None

    def told(self) -> dict[str, object]:
        """As `POST /config/reload` shows it."""
        shown = {"setting": self.setting, "from": self.before, "to": self.after}
        return shown if self.why is None else {**shown, "why": self.why}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reload came to.

    Attributes:
        changed: what is in force from now on.
        needs_restart: what was read and is not in force.
        unchanged: how many settings are what they were.
        warnings: what is worth a second look.
    """

    changed: list[Change]
    needs_restart: list[Change]
    unchanged: int
    warnings: list[str]

    def sentence(self) -> str:
        """For the log."""
        changed = ", ".join(f"{c.setting} from {c.before} to {c.after}" for c in self.changed)
        restart = ", ".join(c.setting for c in self.needs_restart)
        said = f"changed {changed or 'nothing'}"
        return f"{said}; needs a restart: {restart}" if restart else said

    def told(self) -> dict[str, object]:
        """As `POST /config/reload` shows it."""
        return {
            "changed": [change.told() for change in self.changed],
            "needs_restart": [change.told() for change in self.needs_restart],
            "unchanged": self.unchanged,
            "warnings": self.warnings,
        }


class Reloads:
    """The configuration in force, and the way to another one.

    Args:
        settings: in force at the start.
        reread: reads the layers that `settings` came from once more; raises `ConfigError`.

    Attributes:
        settings: in force now.
    """

    def __init__(self, settings: Settings, reread: Callable[[], Settings]) -> None:
        self.settings = settings
        self._reread = reread
        self._parts: list[Callable[[Settings, Settings], Callable[[], None] | None]] = []

    def feed(self, derive: Callable[[Settings], T], take: Callable[[T], None]) -> None:
        """Give a part of the proxy its settings anew whenever they change.

        Args:
            derive: makes what the part takes; may raise, and then nothing changes anywhere.
            take: gives it to the part; must not fail.
        """

        def prepare(before: Settings, after: Settings) -> Callable[[], None] | None:
            made = derive(after)
            return None if made == derive(before) else partial(take, made)

        self._parts.append(prepare)

    def reload(self) -> Outcome:
        """Read everything again and apply what may change.

        Raises:
            BadConfiguration: it cannot be used; nothing has changed.
        """
        wanted = self._read()
        outcome = _compared(self.settings, wanted)
        mixed = _mixed(self.settings, wanted)
        clashes = find_contradictions(mixed)
        if clashes:
            raise BadConfiguration(
                "What may change at once contradicts what needs a restart; nothing has changed.",
                tuple(clashes),
            )
        prepared = [prepare(self.settings, mixed) for prepare in self._parts]
        self.settings = mixed
        for take in prepared:
            if take is not None:
                take()
        return outcome

    def _read(self) -> Settings:
        said = "The configuration cannot be used; nothing has changed."
        try:
            wanted = self._reread()
        except ConfigError as error:
            raise BadConfiguration(said, error.problems) from None
        problems = find_contradictions(wanted)
        if problems:
            raise BadConfiguration(said, tuple(problems))
        return wanted


def _why(name: str) -> str | None:
    """Why a setting needs a restart; None where it does not."""
    return None if name in LIVE else RESTART[name]


def _compared(before: Settings, after: Settings) -> Outcome:
    old, new = _flat(before), _flat(after)
    shown_before, shown_after = _flat_masked(before), _flat_masked(after)
    differing = [name for name, value in new.items() if value != old[name]]
    changes = [
        Change(name, shown_before[name], shown_after[name], _why(name)) for name in differing
    ]
    return Outcome(
        [change for change in changes if change.why is None],
        [change for change in changes if change.why is not None],
        len(old) - len(changes),
        find_warnings(after),
    )


def _mixed(before: Settings, after: Settings) -> Settings:
    """What is in force after a reload: the old values of what needs a restart, else the new."""
    kept: dict[str, dict[str, object]] = {}
    for name, value in _flat(before).items():
        section, _, field = name.partition(".")
        if name not in LIVE:
            kept.setdefault(section, {})[field] = value
    sections = {
        section: getattr(after, section).model_copy(update=values)
        for section, values in kept.items()
    }
    return after.model_copy(update=sections)


def _flat(settings: Settings) -> dict[str, object]:
    return dict(_named(settings.model_dump()))


def _flat_masked(settings: Settings) -> dict[str, object]:
    return dict(_named(masked(settings)))


def _named(sections: dict[str, object]) -> Iterator[tuple[str, object]]:
    for section, values in sections.items():
        if isinstance(values, dict):
            for name, value in values.items():
                yield f"{section}.{name}", value


def reload_table() -> str:
    """Every setting and whether it changes at once, as a Markdown table."""
    rows = ["| setting | on reload |", "|---|---|"]
    for name in _flat(Settings()):
        why = _why(name)
        rows.append(f"| `{name}` | {'at once' if why is None else f'needs a restart: {why}'} |")
    return "\n".join(rows)
