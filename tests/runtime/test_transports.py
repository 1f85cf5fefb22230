import pytest

from tinkex_proxy.runtime.httpx_transport import HttpxTransport
from tinkex_proxy.runtime.transport import PyqwestTransport
from tinkex_proxy.runtime.transports import open_transport


@pytest.mark.parametrize(
    ("kind", "made"), [("pyqwest", PyqwestTransport), ("httpx", HttpxTransport)]
)
async def test_the_configured_name_decides(kind: str, made: type) -> None:
    transport = open_transport(kind, "https://127.0.0.1:1", connect_timeout_s=1)
    assert isinstance(transport, made)
    await transport.close()
