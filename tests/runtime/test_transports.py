import pytest

from tinkex_proxy.runtime.http1_transport import Http1Transport
from tinkex_proxy.runtime.httpx_transport import HttpxTransport
from tinkex_proxy.runtime.transport import PyqwestTransport
from tinkex_proxy.runtime.transports import open_transport


@pytest.mark.parametrize(
    ("kind", "scheme", "made"),
    [
        ("auto", "http", Http1Transport),
        ("auto", "https", PyqwestTransport),
        ("pyqwest", "http", PyqwestTransport),
        ("httpx", "https", HttpxTransport),
    ],
)
async def test_the_configured_name_decides_and_else_the_scheme(
    kind: str, scheme: str, made: type
) -> None:
    transport = open_transport(kind, f"{scheme}://127.0.0.1:1", connect_timeout_s=1)
    assert isinstance(transport, made)
    await transport.close()
