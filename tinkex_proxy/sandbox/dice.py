"""Who is hit: a plan and a seed in, a decision for each request out. No clock, no network.

Every fault has dice of its own, and they are thrown for every request that its path covers, window
open or not. So the nth such request of a run is hit in the next run too, whatever other faults
stand beside it and however fast the machine is.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tinkex_proxy.sandbox.faults import (
    Duplicate,
    Error,
    Expire,
    Fault,
    Latency,
    Lost,
    Paused,
    Reset,
    Slow,
)
from tinkex_proxy.sandbox.plans import Plan

__all__ = ["NOTHING", "Decision", "Dice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What happens to one request.

    Attributes:
        delay_s: wait so long first.
        expire: end all sessions then.
        instead: give this and do not act.
        again: act twice, the second time as this says.
        afterwards: act, then give this and not the answer.
        bytes_per_s: how fast the answer's body goes out; None is as fast as it can.
        request_bytes_per_s: how fast the request's body is taken in; None is as fast as it comes.
    """

    delay_s: float = 0.0
    expire: bool = False
    instead: Error | Reset | Lost | Paused | None = None
    again: Duplicate | None = None
    afterwards: Error | Reset | Lost | None = None
    bytes_per_s: float | None = None
    request_bytes_per_s: float | None = None


NOTHING = Decision()


class Dice:
    """Decides for a plan.

    Args:
        plan: what is to go wrong.

    Attributes:
        hits: for each fault, how many requests it was decided to hit.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.hits = [0] * len(plan.faults)
        self._draws = [random.Random(f"{plan.seed}:{n}") for n in range(len(plan.faults))]  # noqa: S311 - must repeat

    def decide(self, path: str, elapsed_s: float) -> Decision:
        """Throw for one request.

        Args:
            path: of the request.
            elapsed_s: seconds since the plan was set.
        """
        delay_s, struck = 0.0, list[Fault]()
        for number, fault in enumerate(self.plan.faults):
            if not fault.covers(path):
                continue
            chance, spread = self._draws[number].random(), self._draws[number].random()
            spent = fault.count is not None and self.hits[number] >= fault.count
            if spent or chance >= fault.rate or not fault.is_on(elapsed_s):
                continue
            self.hits[number] += 1
            struck.append(fault)
            if isinstance(fault, Latency):
                delay_s += fault.delay_s + spread * fault.jitter_s
        return _composed(struck, delay_s) if struck else NOTHING


def _composed(struck: Sequence[Fault], delay_s: float) -> Decision:
    answers = [f for f in struck if isinstance(f, Error | Reset | Lost) and f.when != "before"]
    refusals = [
        f
        for f in struck
        if isinstance(f, Paused) or (isinstance(f, Error | Reset | Lost) and f.when == "before")
    ]
    copies = [f for f in struck if isinstance(f, Duplicate)]
    return Decision(
        delay_s=delay_s,
        expire=any(isinstance(f, Expire) for f in struck),
        instead=refusals[0] if refusals else None,
        again=copies[0] if copies else None,
        afterwards=answers[0] if answers else None,
        bytes_per_s=_slowest(struck, "answer"),
        request_bytes_per_s=_slowest(struck, "request"),
    )


def _slowest(struck: Sequence[Fault], body: str) -> float | None:
    slow = [f for f in struck if isinstance(f, Slow) and f.body in {body, "both"}]
    return min((f.bytes_per_s for f in slow), default=None)
