"""What an answer itself says about asking again: how long to wait, and whether to.

Read as the official SDK reads it (`_base_client.py`): `retry-after-ms` before `Retry-After`, which
may be seconds or a date, and `x-should-retry`. Two things differ. A wait of more than a minute is
cut to a minute, where the SDK forgets it and comes back sooner. And a date is measured against the
answer's own `Date`, so that no two clocks need agree; without one it says nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["MAX_WAIT_S", "NO_ADVICE", "Advice", "advice_of"]

# The SDK obeys a Retry-After up to a minute; a longer one is bad advice for a waiting caller.
MAX_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Advice:
    """What was said.

    Attributes:
        wait_s: seconds to wait at least, above 0 and at most a minute; None: nothing was said.
        again: whether to ask again; None: nothing was said, so the status decides.
    """

    wait_s: float | None = None
    again: bool | None = None


NO_ADVICE: Final = Advice()


def advice_of(headers: Mapping[str, str]) -> Advice:
    """Read the headers of an answer, which are named in lower case."""
    again = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    return Advice(_wait_s(headers), again)


def _wait_s(headers: Mapping[str, str]) -> float | None:
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        said = headers.get("retry-after")
        seconds = _number(said)
        if seconds is None and said is not None:
            seconds = _until(said, headers.get("date"))
    return min(seconds, MAX_WAIT_S) if seconds is not None and seconds > 0 else None


def _number(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _until(moment: str, date: str | None) -> float | None:
    """Seconds from the answer's own date to `moment`; None when either is no date."""
    try:
        return (parsedate_to_datetime(moment) - parsedate_to_datetime(date or "")).total_seconds()
    except (ValueError, TypeError, OverflowError):  # TypeError: only one of them names its zone
        return None
