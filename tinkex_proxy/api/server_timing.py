"""`Server-Timing`: where a call's time went, as browsers and tracing tools read it.

Every part is there, zero or not, and `total`: what the parts sum to.
"""

from functools import cache
from typing import Final

from tinkex_proxy.core.timeline import Part, Timeline

__all__ = ["HEADER", "relayed_timing", "server_timing"]

HEADER: Final = "server-timing"
# An upstream's reason is a sentence; a header is no place for more.
MAX_REASON_CHARS: Final = 200
# The entry behind that of the part which has a reason.
_BEHIND_HELD: Final = f", {Part.COMPUTE.value};"


def server_timing(timeline: Timeline) -> str:
    """The header's value; durations in milliseconds, to the microsecond."""
    sums = timeline.sums()
    parts, form = _form(frozenset(sums))
    value = form % (*[sums[part] * 1000 for part in parts], timeline.whole_s * 1000)
    held = timeline.held
    if held is None:
        return value
    said = held.state if held.reason is None else f"{held.state}: {held.reason}"
    return value.replace(_BEHIND_HELD, f';desc="{_quotable(said)}"{_BEHIND_HELD}')


@cache  # most calls come to the same three or four of eight
def _form(parts: frozenset[Part]) -> tuple[list[Part], str]:
    """Those parts in order, and the form of the value where all others are zero."""
    entries = [f"{each.value};dur={'%.3f' if each in parts else '0.000'}" for each in Part]
    return [each for each in Part if each in parts], ", ".join([*entries, "total;dur=%.3f"])


_, _OF_RELAYED = _form(frozenset({Part.PROXY, Part.UPLOAD}))


def relayed_timing(began: float, left: float, answered: float) -> bytes:
    """The same of a small call that was relayed.

    Args:
        began: when it came, in seconds of some clock.
        left: when it went to the upstream.
        answered: when its answer was there.
    """
    times = (left - began) * 1000, (answered - left) * 1000, (answered - began) * 1000
    return (_OF_RELAYED % times).encode()


def _quotable(text: str) -> str:
    """What may stand in a quoted string without escapes."""
    plain = (c if c.isascii() and c.isprintable() and c not in '"\\' else "?" for c in text)
    return "".join(plain)[:MAX_REASON_CHARS]
