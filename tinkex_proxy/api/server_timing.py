"""`Server-Timing`: where a call's time went, as browsers and tracing tools read it.

Every part is there, zero or not, and `total`: what the parts sum to.
"""

from typing import Final

from tinkex_proxy.core.timeline import Part, Timeline

__all__ = ["HEADER", "relayed_timing", "server_timing"]

HEADER: Final = "server-timing"
# An upstream's reason is a sentence; a header is no place for more.
MAX_REASON_CHARS: Final = 200
_PLACES: Final = {part: place for place, part in enumerate(Part)}
_NAMES: Final = [part.value for part in Part]
# Most calls come to three or four of them.
_ZEROS: Final = [f"{name};dur=0.000" for name in _NAMES]


def server_timing(timeline: Timeline) -> str:
    """The header's value; durations in milliseconds, to the microsecond."""
    entries = _ZEROS.copy()
    for part, seconds in timeline.sums().items():
        place = _PLACES[part]
        entries[place] = f"{_NAMES[place]};dur={seconds * 1000:.3f}"
    held = timeline.held
    if held is not None:
        said = held.state if held.reason is None else f"{held.state}: {held.reason}"
        entries[_PLACES[Part.UPSTREAM_QUEUE]] += f';desc="{_quotable(said)}"'
    return ", ".join([*entries, f"total;dur={timeline.whole_s * 1000:.3f}"])


_OF_RELAYED: Final = (
    ", ".join(
        f"{part.value};dur={'%.3f' if part in {Part.PROXY, Part.UPLOAD} else '0.000'}"
        for part in Part
    )
    + ", total;dur=%.3f"
)


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
