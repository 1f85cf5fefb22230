"""The transports by the names that the configuration has for them."""

import ssl

from tinkex_proxy.runtime.transport import PyqwestTransport, Transport

__all__ = ["open_transport"]


def open_transport(kind: str, base_url: str, *, connect_timeout_s: float) -> Transport:
    """Open the transport that the configuration names (`pyqwest` or `httpx`)."""
    if kind == "pyqwest":
        return PyqwestTransport(base_url, connect_timeout_s=connect_timeout_s)
    # Imported on demand: httpx costs a third of the start-up time and most users never need it.
    from tinkex_proxy.runtime.httpx_transport import HttpxTransport  # noqa: PLC0415

    tls = ssl.create_default_context()
    return HttpxTransport(base_url, connect_timeout_s=connect_timeout_s, tls=tls)
