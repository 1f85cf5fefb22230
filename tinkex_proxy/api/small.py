"""Which requests may go a short way: those that come whole and say nothing out of the ordinary.

What the official SDKs and nearly all plain callers send is of that kind. All else goes the way of
everything, from the start: what has headers that are looked at more closely, a place in a trace, a
server without our extensions (`cycle.py`), and all where each line of the log is wanted at once.
"""

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from tinkex_proxy.api.asgi import ANSWER, Scope, named_of
from tinkex_proxy.api.calls import Services

__all__ = ["Named", "key_named", "small_of"]

Named = Mapping[bytes, bytes]

_KEY: Final = b"x-api-key"
_LOG: Final = logging.getLogger("tinkex_proxy")


def small_of(scope: Scope, services: Services, unusual: AbstractSet[bytes]) -> Named | None:
    """The headers of a request that may go a short way, none of which comes twice; else None.

    Args:
        scope: what it came as.
        services: say whether anything may, now.
        unusual: headers that are looked at more closely.
    """
    named, offered = named_of(scope), scope.get("extensions")
    if (
        named is None
        or not isinstance(offered, dict)
        or ANSWER not in offered
        or not unusual.isdisjoint(named)
        or services.draining
        or services.tracer.on
        or _LOG.isEnabledFor(logging.DEBUG)
        or not named.get(_KEY, b"").isascii()
    ):
        return None
    return named


def key_named(named: Named) -> str | None:
    """The caller's own key, if it sent one."""
    return named.get(_KEY, b"").decode().strip() or None
