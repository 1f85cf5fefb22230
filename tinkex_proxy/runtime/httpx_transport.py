"""`Transport` over httpx: for in-process tests (ASGI) and for users who need its features."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.transport import (
    Passed,
    Passing,
    Request,
    Response,
    TransportFault,
    is_ours,
)

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
            async with self._client.stream(
                request.method,
                self._base_url + request.path,
                headers={"accept-encoding": "identity", **request.headers},
                content=request.body,
                timeout=timeout,
            ) as answer:
                if request.on_head is not None:
                    request.on_head()
                await answer.aread()
        except httpx.TransportError as error:
            raise _fault_of(error, request.timeout_s) from None
        return Response(answer.status_code, dict(answer.headers), answer.content)

    @asynccontextmanager
    async def relay(self, passing: Passing) -> AsyncIterator[Passed]:
        """Pass a request on and its answer back, without reading either.

        Raises:
            TransportFault: no head of an answer came, or its body broke off.
        """
        timeout = httpx.Timeout(passing.timeout_s, connect=self._connect_timeout_s)
        try:
            async with self._client.stream(
                passing.method,
                self._base_url + passing.path,
                headers=list(passing.headers),
                content=passing.body,
                timeout=timeout,
            ) as answer:
                headers = [(name.lower(), value) for name, value in answer.headers.raw]
                yield Passed(answer.status_code, headers, answer.aiter_raw())
        except httpx.TransportError as error:
            raise _fault_of(error, passing.timeout_s) from None

    async def relay_whole(self, passing: Passing) -> Passed:
        """Pass a request on, and give its answer when all of it is there.

        Raises:
            TransportFault: no whole answer came.
        """
        async with self.relay(passing) as passed:
            return Passed(passed.status, passed.headers, await passed.whole())

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def _fault_of(error: httpx.TransportError, timeout_s: float) -> TransportFault:
    said = str(error) or type(error).__name__
    if is_ours(error):
        return TransportFault(Fault.NOT_SENT, said)
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return TransportFault(Fault.CONNECT, said)
    if isinstance(error, httpx.TimeoutException):
        return TransportFault(Fault.TIMEOUT, f"no answer within {timeout_s:g} s")
    return TransportFault(Fault.RESET, said)
