"""How many failures in a row are news, for an upstream that fails now and then anyway.

Five failures in a row mean an outage where a call in a thousand fails. Where one in ten does, they
happen by chance in every hundred thousand calls; and where an upstream stumbles over a few calls at
a time, each stumble costs a whole time open. So, if asked to, the threshold follows the upstream.
It is the sum of two parts:

* **Chance.** What is usual is a moving average of the failure rate, over some `MEMORY` calls. A run
  of failures is no part of it before it is over: an outage may not raise the threshold that it has
  to reach. News is a run as unlikely as `threshold` failures in a row are where one call in a
  hundred fails (`REFERENCE`): `rate ** n <= REFERENCE ** threshold`, so that
  `n = threshold * log(REFERENCE) / log(rate)`, rounded up. The rate is taken as at least `CALMEST`,
  where n is two thirds of the threshold.
* **Stumbles.** A trip that the very first probe ended may have been none: each adds half the
  threshold. One failure is taken off again for every `CALM_CALLS` successes in which no run came
  near to what the fixed threshold would have tripped on.

It is never more than `MOST_TIMES` the threshold, so that an outage is always seen.

A threshold of 5 is 4 where at most one call in a thousand fails, 5 at one in a hundred, 10 at one
in ten and 15 from one in five. A new one begins at `REFERENCE`, where it is as the fixed threshold.
"""

import math
from typing import Final

__all__ = ["Baseline"]

MEMORY: Final = 200
REFERENCE: Final = 0.01
CALMEST: Final = 0.001
WORST: Final = 0.5
MOST_TIMES: Final = 3
CALM_CALLS: Final = 2_000


class Baseline:
    """What is usual for one upstream, and the threshold that follows from it.

    Args:
        threshold: failures in a row that are news where one call in a hundred fails.

    Attributes:
        threshold: failures in a row that are news here and now.
    """

    def __init__(self, threshold: int) -> None:
        self._fixed = threshold
        self._rate = REFERENCE
        self._run = 0
        self._stumbles = 0
        self._calm = 0
        self.threshold = threshold

    def count(self, *, failed: bool) -> None:
        """Take in one outcome."""
        if failed:
            self._run += 1
            return
        self._learn()
        self._rate -= self._rate / MEMORY
        self._calm += 1
        if self._calm >= CALM_CALLS:
            self._calm = 0
            self._stumbles = max(0, self._stumbles - 1)
        self._set()

    def closed(self, *, at_once: bool) -> None:
        """The circuit was closed: what tripped it is over, and part of what is usual.

        Args:
            at_once: whether its first probe found the upstream well.
        """
        self._learn()
        if at_once:
            most = MOST_TIMES * self._fixed
            self._stumbles = min(most, self._stumbles + max(1, self._fixed // 2))
        self._set()

    def _learn(self) -> None:
        """A run is over."""
        if self._run >= self._fixed:
            self._calm = 0
        if self._run:
            self._rate = 1 - (1 - self._rate) * (1 - 1 / MEMORY) ** self._run
            self._run = 0

    def _set(self) -> None:
        usual = min(WORST, max(CALMEST, self._rate))
        # The tiny part keeps rounding errors from asking for one more.
        chance = math.ceil(self._fixed * math.log(REFERENCE) / math.log(usual) - 1e-9)
        self.threshold = min(MOST_TIMES * self._fixed, max(1, chance) + self._stumbles)
