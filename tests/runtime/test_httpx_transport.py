"""What only httpx can: calling an application in this process."""

import httpx
import pytest

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.httpx_transport import HttpxTransport
from tinkex_proxy.runtime.transport import Request, TransportFault


async def test_an_application_in_this_process_can_be_the_upstream() -> None:
    async def app(scope, receive, send) -> None:
        assert scope["path"] == "/api/v1/healthz"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b")]})
        await send({"type": "http.response.body", "body": b"hi"})

    inner = httpx.ASGITransport(app=app)
    transport = HttpxTransport("http://inside", inner=inner)
    answer = await transport.send(Request("GET", "/api/v1/healthz"))
    assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"hi", "b")
    await transport.close()


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (httpx.ConnectTimeout("slow"), Fault.CONNECT),
        (httpx.ReadTimeout("slow"), Fault.TIMEOUT),
        (httpx.WriteError(""), Fault.RESET),
    ],
)
async def test_every_failure_of_httpx_is_one_of_ours(error: Exception, fault: Fault) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    transport = HttpxTransport("http://inside", inner=httpx.MockTransport(fail))
    with pytest.raises(TransportFault) as caught:
        await transport.send(Request("GET", "/"))
    assert caught.value.fault is fault
    assert caught.value.detail
    await transport.close()
