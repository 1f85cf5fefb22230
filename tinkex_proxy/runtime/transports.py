"""The transports by the names that the configuration has for them."""

import ssl

from tinkex_proxy.runtime.http1_transport import Http1Transport
from tinkex_proxy.runtime.transport import PyqwestTransport, Transport

__all__ = ["named_transport", "open_transport"]


def named_transport(kind: str, base_url: str) -> str:
    """Which one the configuration means: of `auto`, the fastest that can ask this upstream."""
    if kind != "auto":
        return kind
    return "http1" if base_url.startswith("http://") else "pyqwest"


def open_transport(kind: str, base_url: str, *, connect_timeout_s: float) -> Transport:
    """Open the transport that the configuration names (`auto`, `pyqwest` or `httpx`)."""
    name = named_transport(kind, base_url)
    if name == "http1":
        return Http1Transport(base_url, connect_timeout_s=connect_timeout_s)
    if name == "pyqwest":
        return PyqwestTransport(base_url, connect_timeout_s=connect_timeout_s)
    # Imported on demand: httpx costs a third of the start-up time and most users never need it.
    from tinkex_proxy.runtime.httpx_transport import HttpxTransport  # noqa: PLC0415

    tls = ssl.create_default_context()
    return HttpxTransport(base_url, connect_timeout_s=connect_timeout_s, tls=tls)
