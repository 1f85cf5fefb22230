"""`Transport` over httpx: for in-process tests (ASGI) and for users who need its features."""

import ssl

import httpx

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.transport import Request, Response, TransportFault

__all__ = ["HttpxTransport"]


class HttpxTransport:
    """`Transport` over httpx.

    Args:
        base_url: scheme, host and path prefix of the upstream, without a trailing slash.
        connect_timeout_s: seconds to establish a connection.
        tls: how to verify an https upstream.
        inner: another httpx transport (such as `httpx.ASGITransport`) instead of sockets.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout_s: float = 5.0,
        tls: ssl.SSLContext | None = None,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._base_url = base_url
        self._connect_timeout_s = connect_timeout_s
        self._client = httpx.AsyncClient(
            transport=inner,
            verify=True if tls is None else tls,
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
        )

    async def send(self, request: Request) -> Response:
        """Send, and wait for the whole answer.

        Raises:
            TransportFault: no whole answer came.
        """
        timeout = httpx.Timeout(request.timeout_s, connect=self._connect_timeout_s)
        try:
            answer = await self._client.request(
                request.method,
                self._base_url + request.path,
                headers={"accept-encoding": "identity", **request.headers},
                content=request.body,
                timeout=timeout,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise TransportFault(Fault.CONNECT, str(error) or type(error).__name__) from None
        except httpx.TimeoutException:
            raise TransportFault(
                Fault.TIMEOUT, f"no answer within {request.timeout_s:g} s"
            ) from None
        except httpx.TransportError as error:
            raise TransportFault(Fault.RESET, str(error) or type(error).__name__) from None
        return Response(answer.status_code, dict(answer.headers), answer.content)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()
