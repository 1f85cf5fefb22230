"""The one check in front of every route: whose page is asking, and by which name.

A daemon on localhost that holds a key is reachable from every web page the user opens. Two checks
close that: a `Host` that is not ours is DNS rebinding (CVE-2024-28224 and its kin), and a foreign
`Origin` or `Sec-Fetch-Site: cross-site` is another page's script or form. There are no CORS headers
at all. A third check is for what changes something for everybody (breakers, the configuration, the
end of the proxy): a browser has to send `X-Tinkex-Action` with it, which no form can, and no script
of another origin without asking first. Programs are no browsers and need not: what they send has
neither `Origin` nor `Sec-Fetch-*`, and no page can take those away.

The checks sit below the framework, so that a route added later cannot forget them.
"""

import ipaddress
import uuid
from collections.abc import Awaitable, Iterable
from typing import Final

from tinkex_proxy.api.asgi import (
    CALLERS,
    ASGIApp,
    Receive,
    Scope,
    Send,
    named_of,
    pairs_of,
    send_answer,
)
from tinkex_proxy.api.problems import problem_answer
from tinkex_proxy.errors import ForeignHost, ForeignOrigin, ProxyError

__all__ = ["ACTION_HEADER", "LOOKING", "Guard"]

# What our own page sends with every button.
ACTION_HEADER: Final = "x-tinkex-action"
_LOOKED_AT: Final = {
    b"host": 0,
    b"origin": 1,
    b"sec-fetch-site": 2,
    b"sec-fetch-dest": 3,
    ACTION_HEADER.encode(): 4,
}
_BROWSERS: Final = frozenset(_LOOKED_AT) - {b"host"}
# Forms of our names that are known at a glance; who sends yet another is looked at more closely.
MAX_REMEMBERED: Final = 64
LONGEST_REMEMBERED: Final = 256
_LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})
# Methods that change nothing.
LOOKING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware in front of everything.

    Args:
        app: what is guarded.
        bind_host: the address we listen on.
        allowed_hosts: further names we answer to, such as a compose service's.
    """

    def __init__(self, app: ASGIApp, *, bind_host: str, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._bind_host = bind_host.lower()
        self.reconfigure(allowed_hosts)
        # Listening beyond loopback, we are called by address too (a kubelet's probe names the pod's
        # IP); an address cannot be rebound, a name can.
        self._any_address = not _is_loopback(bind_host)

    def reconfigure(self, allowed_hosts: Iterable[str]) -> None:
        """Answer to these further names from the next request on."""
        self._ours: set[bytes] = set()
        self._names = {*_LOOPBACK_NAMES, self._bind_host, *(h.lower() for h in allowed_hosts)}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            named = named_of(scope)
            # Nearly always a program asks, by a name that was found to be ours before.
            known = named is not None and named.get(b"host") in self._ours
            if not (known and _BROWSERS.isdisjoint(named or ())):
                error = self._refusal(scope)
                if error is not None:
                    return _refuse(error, scope, send)
        return self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> ProxyError | None:
        hosts, origins, sites, wanted, acts = found = _nothing()
        for name, value in pairs_of(scope):
            place = _LOOKED_AT.get(name)
            if place is not None:
                found[place].append(value.decode("latin-1").strip().lower())
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            said = " and ".join(map(repr, hosts)) or "no Host"
            return ForeignHost(
                f"This proxy does not answer to {said}. Use localhost, or add the name to "
                "server.allowed_hosts."
            )
        if not (origins or sites or wanted):  # no browser
            self._remember(scope)
            return None
        own = {f"http://{hosts[0]}", f"https://{hosts[0]}"}
        foreign = [origin for origin in origins if origin.lower() not in own]
        # A link on another site that a person follows to a page of ours is no script's request.
        followed = scope.get("method") == "GET" and wanted == ["document"]
        if foreign or ("cross-site" in sites and not followed):
            said = repr(foreign[0]) if foreign else "another site"
            return ForeignOrigin(f"A web page of {said} may not use this proxy.")
        if not acts and _changes_for_all(scope):
            return ForeignOrigin(
                f"A browser has to send the header {ACTION_HEADER} with what changes something."
            )
        return None

    def _remember(self, scope: Scope) -> None:
        if len(self._ours) < MAX_REMEMBERED:
            hosts = (value for name, value in pairs_of(scope) if name == b"host")
            self._ours.update(host for host in hosts if len(host) <= LONGEST_REMEMBERED)

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if _has_port(host) else host
        name = name.strip("[]").rstrip(".")
        if name in self._names:
            return True
        return _is_address(name) if self._any_address else _is_loopback(name)


async def _refuse(error: ProxyError, scope: Scope, send: Send) -> None:
    request_id = uuid.uuid4().hex
    answer = problem_answer(error, instance=str(scope["path"]), request_id=request_id)
    await send_answer(send, answer, {"x-request-id": request_id, "connection": "close"})


def _nothing() -> tuple[list[str], list[str], list[str], list[str], list[str]]:
    return [], [], [], [], []


def _changes_for_all(scope: Scope) -> bool:
    """Whether a request is an operator's and does more than look."""
    path = str(scope["path"])
    return scope.get("method") not in LOOKING and not path.startswith(CALLERS)


def _has_port(host: str) -> bool:
    tail = host.rpartition(":")[2]
    return tail.isdigit() and (host.count(":") == 1 or host.startswith("["))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in _LOOPBACK_NAMES
