"""What is read of the keys when somebody scrapes: budgets, time held back, queue states.

Series of a key are named by its public id and go when its account does, of which there are at most
`upstream.max_keys`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.futures import QUEUE_STATES
from tinkex_proxy.runtime.metrics import Family

__all__ = ["families"]


def families(accounts: Iterable[Account]) -> Mapping[str, Family]:
    """The series by name; `accounts` is gone through at every scrape."""

    def states() -> Iterable[tuple[str, float]]:
        counts = Counter(dict.fromkeys(QUEUE_STATES, 0))
        for account in accounts:
            counts.update(account.tools.poller.states())
        return counts.items()

    def held() -> Iterable[tuple[str, float]]:
        for account in accounts:
            held_back = account.upstream.pace.held_back()
            yield account.key_id, 0.0 if held_back is None else held_back[0]

    return {
        "tinkex_proxy_queue_state": Family(
            "Requests that the upstream holds, by what it last said of them.", "state", states
        ),
        "tinkex_proxy_retry_budget_remaining": Family(
            "Requests that a key could send again now.",
            "key_id",
            lambda: [(a.key_id, a.upstream.retries.remaining()) for a in accounts],
        ),
        "tinkex_proxy_held_back_remaining_seconds": Family(
            "For how much longer no submit of a key goes, as the upstream asked.", "key_id", held
        ),
        "tinkex_proxy_held_back_seconds": Family(
            "Time for which a key's submits have been held back.",
            "key_id",
            lambda: [(a.key_id, a.upstream.pace.held_s()) for a in accounts],
            total=True,
        ),
    }
