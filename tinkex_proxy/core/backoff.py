"""How long to wait before asking again: full jitter over a doubling ceiling.

"Full jitter" (a uniform draw from zero to the ceiling) spreads callers that failed together better
than any fixed fraction; the draw is passed in, so that the rule stays pure.
"""

from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """A doubling wait.

    Attributes:
        base_s: ceiling of the first wait, in seconds.
        cap_s: ceiling that doubling never passes, in seconds.
    """

    base_s: float = 0.25
    cap_s: float = 10.0

    def delay_s(self, attempt: int, draw: float, *, floor_s: float = 0.0) -> float:
        """Seconds to wait after failure number `attempt` (from 0).

        Args:
            attempt: how many failures came before this one.
            draw: a number from [0, 1), the jitter.
            floor_s: the least wait, such as the upstream's `Retry-After`; jitter is added on top.
        """
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(attempt, 32))
        return floor_s + ceiling * draw
