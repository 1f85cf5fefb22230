"""Sending again, under one key: whether, after what wait, and told to whoever listens.

`core.retry` decides for each request, `core.budget` for the key; here is the waiting. Where work
waits for budget it does so in the order it came, and that wait is not counted against its patience:
giving up for the budget's sake would leave a caller in doubt.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

from tinkex_proxy.core.advice import NO_ADVICE, Advice
from tinkex_proxy.core.budget import RetryBudget
from tinkex_proxy.core.retry import Asking, Happened, Kind, Policy, Spent, row_of
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import Repeated
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.whose import Whose

__all__ = ["Retries"]


class Retries:
    """The repetitions of one key.

    Args:
        clock: measures and sleeps.
        hub: told of every repetition.
        budget: how many there may be.
    """

    def __init__(self, clock: Clock, hub: Hub, budget: RetryBudget) -> None:
        self._clock = clock
        self._hub = hub
        self._budget = budget
        self._head = asyncio.Lock()
        self._counts = Counter[str]()

    def begin(
        self,
        kind: Kind,
        *,
        recognised: bool = True,
        persistent: bool = False,
        doubtful: bool = False,
        patience_s: float | None = None,
    ) -> Asking:
        """Begin a request, which earns the key its share of repetitions."""
        now = self._clock.now()
        self._budget.begun(now)
        policy = row_of(kind, recognised=recognised)
        return Asking(
            policy,
            now,
            kind=kind,
            patience_s=patience_s,
            persistent=persistent,
            doubtful=doubtful,
        )

    async def wait_s(
        self,
        asking: Asking,
        happened: Happened,
        advice: Advice = NO_ADVICE,
        *,
        calls: Sequence[Whose] = (),
    ) -> float | None:
        """Seconds to wait before the next attempt, or None, at once, when there is to be none.

        Comes back when there is budget for it, where it is work that waits for that.
        """
        if not asking.again(happened, self._clock.now(), told=advice.again):
            return None
        if asking.draws(happened) and not await self._leave(asking):
            self.note(asking.kind, happened, sent=False, calls=calls)
            return None
        if happened is not Happened.HELD:  # else nothing was sent that could be repeated
            self.note(asking.kind, happened, calls=calls)
        return self.drawn(asking.policy, asking.attempts - 1, advice)

    @staticmethod
    def drawn(policy: Policy, failures: int, advice: Advice = NO_ADVICE) -> float:
        """Seconds to wait after so many failures: what was asked for, and full jitter on top."""
        draw = random.random()  # noqa: S311 - jitter, not a secret
        return policy.backoff.delay_s(failures, draw, floor_s=advice.wait_s or 0.0)

    async def spend(self, kind: Kind, happened: Happened) -> None:
        """Take budget for a repetition that has to be made, when there is some, and count it."""
        await self._wait_for_budget()
        self.note(kind, happened)

    def note(
        self,
        kind: Kind,
        happened: Happened,
        *,
        sent: bool = True,
        calls: Sequence[Whose] = (),
    ) -> None:
        """Count a repetition, or one for which there was no budget, of what `calls` asked for."""
        self._counts["sent" if sent else "refused"] += 1
        self._hub.tell(Repeated(kind.value, happened.value, sent, calls))

    def remaining(self) -> int:
        """How many repetitions could go now."""
        return self._budget.remaining(self._clock.now())

    def snapshot(self) -> dict[str, object]:
        """What `GET /lanes` shows of a key."""
        return {
            "retries": self._counts["sent"],
            "retries_refused": self._counts["refused"],
            "retry_budget_remaining": self.remaining(),
        }

    async def _leave(self, asking: Asking) -> bool:
        """Take one from the budget, or wait for one if it is that kind of work."""
        if asking.policy.spent is Spent.FAIL:
            return self._budget.take(self._clock.now())
        began = self._clock.now()
        await self._wait_for_budget()
        asking.waited(self._clock.now() - began)
        return True

    async def _wait_for_budget(self) -> None:
        async with self._head:
            while not self._budget.take(now := self._clock.now()):
                await self._clock.sleep(self._budget.wait_s(now))
