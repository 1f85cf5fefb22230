"""What is read when somebody scrapes: lanes, sessions, budgets, what is held and awaited.

Series of a key are named by its public id and go when its account does, of which there are at most
`upstream.max_keys`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from tinkex_proxy.core.breaker import State
from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.futures import QUEUE_STATES
from tinkex_proxy.runtime.intake import Intake
from tinkex_proxy.runtime.ledger import Ledger
from tinkex_proxy.runtime.metrics import Readings
from tinkex_proxy.runtime.models import Model
from tinkex_proxy.runtime.tasks import Tasks

__all__ = ["breaker_number", "readings", "sessions"]


def sessions(accounts: Iterable[Account]) -> float:
    """Upstream sessions that are kept alive."""
    return sum(1 for a in accounts if a.session.current is not None)


def breaker_number(accounts: Iterable[Account]) -> float:
    """One number for all breakers: 1 where one is open, else 2 where one is half-open, else 0."""
    states = {account.upstream.breaker.state for account in accounts}
    if states & {State.OPEN, State.FORCED_OPEN}:
        return 1
    return 2 if State.HALF_OPEN in states else 0


def readings(
    accounts: Iterable[Account], ledger: Ledger, intake: Intake, tasks: Tasks, clock: Clock
) -> Mapping[str, Readings]:
    """What to read by name of the series; `accounts` is gone through at every scrape."""

    def states() -> Iterable[tuple[str, float]]:
        counts = Counter(dict.fromkeys(QUEUE_STATES, 0))
        for account in accounts:
            counts.update(account.tools.poller.states())
        return counts.items()

    def held() -> Iterable[tuple[str, float]]:
        for account in accounts:
            held_back = account.upstream.pace.held_back()
            yield account.key_id, 0.0 if held_back is None else held_back[0]

    def oldest() -> float:
        since = [a.tools.poller.oldest for a in accounts if a.tools.poller.oldest is not None]
        return max(0.0, clock.now() - min(since)) if since else 0.0

    def models() -> Iterable[Model]:
        return (model for account in accounts for model in account.models.values())

    return {
        "tinkex_proxy_lanes": lambda: sum(1 for model in models() if model.gone is None),
        "tinkex_proxy_lane_depth": lambda: sum(model.driver.lane.depth for model in models()),
        "tinkex_proxy_sessions": lambda: sessions(accounts),
        "tinkex_proxy_inflight_calls": lambda: intake.usage.calls,
        "tinkex_proxy_inflight_bytes": lambda: intake.usage.size_bytes,
        "tinkex_proxy_tasks": lambda: len(tasks),
        "tinkex_proxy_futures_pending": lambda: ledger.pending().items(),
        "tinkex_proxy_kept_answers": lambda: ledger.kept[0],
        "tinkex_proxy_kept_answers_bytes": lambda: ledger.kept[1],
        "tinkex_proxy_queue_state": states,
        "tinkex_proxy_upstream_futures_pending": lambda: sum(
            a.tools.poller.pending for a in accounts
        ),
        "tinkex_proxy_future_age_seconds": oldest,
        "tinkex_proxy_retry_budget_remaining": lambda: [
            (a.key_id, a.upstream.retries.remaining()) for a in accounts
        ],
        "tinkex_proxy_held_back_remaining_seconds": held,
        "tinkex_proxy_held_back_seconds_total": lambda: [
            (a.key_id, a.upstream.pace.held_s()) for a in accounts
        ],
    }
