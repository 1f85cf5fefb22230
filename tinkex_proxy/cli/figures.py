"""Figures as people read them; a dash where there is none."""

from typing import Final

__all__ = ["NONE", "count", "duration", "rate"]

NONE: Final = "-"


def duration(seconds: float | None) -> str:
    """A length of time in three figures."""
    if seconds is None:
        return NONE
    if seconds < 1:
        millis = seconds * 1000
        return f"{millis:.1f} ms" if millis < 10 else f"{millis:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min"


def rate(number: int, seconds: float) -> str:
    """So many a second."""
    each = number / seconds
    return f"{each:.0f}/s" if each >= 100 else f"{each:.1f}/s"


def count(number: int) -> str:
    """A count, its thousands parted."""
    return f"{number:,}"
