"""Mean and spread of the last values of a series, such as the losses of a model.

A value that is no number makes them no number, for as long as it is remembered: whoever looks at
the losses of a model wants to see it.
"""

import math
from collections import deque

__all__ = ["Moments"]


class Moments:
    """The last values, and what they come to.

    Args:
        size: how many values are remembered.

    Attributes:
        count: how many there have been.
        last: the last one, or None.
    """

    __slots__ = ("_values", "count", "last")

    def __init__(self, size: int) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self.count = 0
        self.last: float | None = None

    def add(self, value: float) -> None:
        """Take one value, which may be of either sign."""
        self._values.append(value)
        self.count += 1
        self.last = value

    @property
    def mean(self) -> float | None:
        """Of the values remembered; None without any."""
        return sum(self._values) / len(self._values) if self._values else None

    @property
    def stddev(self) -> float | None:
        """Of the values remembered, as a sample; None for fewer than two."""
        mean = self.mean
        if mean is None or len(self._values) < 2:
            return None
        # Multiplied: a power that is too large raises, a product is infinite.
        squares = sum((value - mean) * (value - mean) for value in self._values)
        return math.sqrt(squares / (len(self._values) - 1))
