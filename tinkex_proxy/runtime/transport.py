"""The seam to the network: one request out, one whole answer back, or a typed fault.

`PyqwestTransport` (reqwest/hyper, the engine of the official SDK) asks the hosted service,
`Http1Transport` what is asked without TLS: on the event loop, in a third of the time. And
`HttpxTransport` serves in-process tests and users who need httpx's proxies or custom transports.
None follows redirects, decompresses answers or obeys `HTTP_PROXY`: a sidecar that holds a key
sends it to the configured origin and nowhere else.

A fault says what may have happened upstream, because that decides what may be done next: `CONNECT`
means that nothing was sent, `NOT_SENT` that this is our own doing (no more files may be opened),
`RESET` and `TIMEOUT` that the request may have run.
"""

import errno
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol, TypeAlias
from urllib.parse import urlsplit

import msgspec
import pyqwest

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.deadlines import within
from tinkex_proxy.runtime.trace_context import TraceContext
from tinkex_proxy.runtime.whose import Whose

__all__ = [
    "HeaderPairs",
    "Passed",
    "Passing",
    "PyqwestTransport",
    "Request",
    "Response",
    "Transport",
    "TransportFault",
    "decoded",
    "encoded",
    "is_ours",
]

# Headers as they are on the wire.
HeaderPairs: TypeAlias = Sequence[tuple[bytes, bytes]]

# The SDK opens up to 1,000 connections; idle ones cost the upstream a socket each.
MAX_IDLE_PER_HOST = 256


def encoded(headers: Iterable[tuple[str, str]]) -> HeaderPairs:
    """Headers as they go onto the wire, names in lower case."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def decoded(headers: HeaderPairs) -> dict[str, str]:
    """Headers by name; of a repeated one, the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


# A request is made of a handful of records. As dataclasses, frozen ones set field after field from
# Python; that was a tenth of what a relayed request took.
class Request(msgspec.Struct, frozen=True):
    """What is sent.

    Attributes:
        method: GET, POST or DELETE.
        path: path and query, below the upstream's base URL, starting with a slash.
        headers: names in lower case.
        body: the whole body.
        timeout_s: seconds until the whole answer must be there.
        on_head: called when the head of the answer is there; only for answers that may be large,
            because it costs a third of what a small one costs at all.
    """

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    timeout_s: float = 60.0
    on_head: Callable[[], None] | None = None


class Response(msgspec.Struct, frozen=True):
    """What came back; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        """The media type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Passing(msgspec.Struct, frozen=True):
    """A request that is passed on as it came.

    Attributes:
        method: any.
        path: path and query as they came, starting with a slash.
        headers: name in lower case and value, in order, as they came; end-to-end ones only.
        body: the whole body, or its pieces as they come.
        timeout_s: seconds until the head of the answer must be there; all of it, where it is short.
        short: whether the answer is known to be, and is to be read whole: that is half the work.
        trace: its place in a trace; its headers say it too.
        calls: what it is, in logs.
        route: its path, from a set that callers cannot make grow.
    """

    method: str
    path: str
    headers: HeaderPairs
    body: bytes | AsyncIterator[bytes]
    timeout_s: float
    short: bool = False
    trace: TraceContext | None = None
    calls: Sequence[Whose] = ()
    route: str | None = None


class Passed(msgspec.Struct, frozen=True):
    """An answer that is passed back as it comes, or whole.

    Attributes:
        status: its status.
        headers: name in lower case and value, in order, as they came.
        body: all of it, or its pieces as they come.
    """

    status: int
    headers: HeaderPairs
    body: bytes | AsyncIterator[bytes]

    async def whole(self) -> bytes:
        """All of its body, when that has come."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """Its body as it comes."""
        if isinstance(self.body, bytes):
            yield self.body
            return
        async for piece in self.body:
            yield piece


class TransportFault(Exception):  # noqa: N818 - it carries a Fault
    """No answer came.

    Attributes:
        fault: what that says about the request.
    """

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class Transport(Protocol):
    """Sends requests to one base URL."""

    async def send(self, request: Request) -> Response:
        """Send, and wait for the whole answer.

        Raises:
            TransportFault: no whole answer came.
        """
        ...

    def relay(self, passing: Passing) -> AbstractAsyncContextManager[Passed]:
        """Pass a request on and its answer back, without reading either.

        Raises:
            TransportFault: no head of an answer came, or its body broke off.
        """
        ...

    async def relay_whole(self, passing: Passing) -> Passed:
        """Pass a request on, and give its answer when all of it is there.

        Raises:
            TransportFault: no whole answer came.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class PyqwestTransport:
    """`Transport` over reqwest.

    Args:
        base_url: scheme, host and path prefix of the upstream, without a trailing slash.
        connect_timeout_s: seconds to establish a connection.
    """

    def __init__(self, base_url: str, *, connect_timeout_s: float = 5.0) -> None:
        self._base_url = base_url
        scheme = urlsplit(base_url).scheme
        # A rule for the scheme we never use is how reqwest is told to ignore HTTP_PROXY.
        no_proxy = pyqwest.Proxy(
            "http://127.0.0.1:9", scheme="http" if scheme == "https" else "https"
        )
        self._transport = pyqwest.HTTPTransport(
            connect_timeout=connect_timeout_s,
            pool_max_idle_per_host=MAX_IDLE_PER_HOST,
            tls_include_system_certs=True,
            enable_gzip=False,
            enable_brotli=False,
            enable_zstd=False,
            follow_redirects=False,
            enable_otel=False,
            proxy=no_proxy,
        )
        self._client = pyqwest.Client(self._transport)

    async def send(self, request: Request) -> Response:
        """Send, and wait for the whole answer."""
        ask = (request.method, self._base_url + request.path, request.headers, request.body)
        try:
            with within(request.timeout_s):
                if request.on_head is not None:
                    async with self._client.stream(*ask) as coming:
                        request.on_head()
                        body = b"".join([piece async for piece in coming.content])
                        return Response(coming.status, _by_name(coming.headers.items()), body)
                answer = await self._client.execute(*ask)
        except _FAILURES as error:
            raise _fault_of(error, request.timeout_s) from None
        return Response(answer.status, _by_name(answer.headers.items()), bytes(answer.content))

    @asynccontextmanager
    async def relay(self, passing: Passing) -> AsyncIterator[Passed]:
        """Pass a request on and its answer back, without reading either."""
        ask = self._asked(passing)
        try:
            async with AsyncExitStack() as stack:
                with within(passing.timeout_s):
                    answer = await stack.enter_async_context(self._client.stream(*ask))
                pieces = (bytes(piece) async for piece in answer.content)
                yield Passed(answer.status, encoded(answer.headers.items()), pieces)
        except _FAILURES as error:
            raise _fault_of(error, passing.timeout_s) from None

    async def relay_whole(self, passing: Passing) -> Passed:
        """Pass a request on, and give its answer when all of it is there."""
        ask = self._asked(passing)
        try:
            with within(passing.timeout_s):
                whole = await self._client.execute(*ask)
        except _FAILURES as error:
            raise _fault_of(error, passing.timeout_s) from None
        return Passed(whole.status, encoded(whole.headers.items()), bytes(whole.content))

    def _asked(
        self, passing: Passing
    ) -> tuple[str, str, list[tuple[str, str]], bytes | AsyncIterator[bytes]]:
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in passing.headers]
        return passing.method, self._base_url + passing.path, headers, passing.body

    async def close(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def _by_name(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def is_ours(error: BaseException | None) -> bool:
    """Whether a connection failed because this process may open no more files."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in _OUT_OF_FILES:
        return True
    if any(f"os error {code})" in str(error) for code in _OUT_OF_FILES):
        return True
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return any(map(is_ours, (error.__cause__, error.__context__, *inner)))


_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
_FAILURES = (
    ConnectionError,
    TimeoutError,
    pyqwest.ConnectTimeout,
    pyqwest.RemoteProtocolError,
    pyqwest.ReadError,
    pyqwest.WriteError,
)


def _fault_of(error: Exception, timeout_s: float) -> TransportFault:
    if is_ours(error):
        return TransportFault(Fault.NOT_SENT, _reason(error))
    if isinstance(error, pyqwest.ConnectTimeout | ConnectionError):
        return TransportFault(Fault.CONNECT, _reason(error))
    if isinstance(error, TimeoutError):
        return TransportFault(Fault.TIMEOUT, f"no answer within {timeout_s:g} s")
    return TransportFault(Fault.RESET, _reason(error))


def _reason(error: Exception) -> str:
    """The innermost cause that reqwest names, without the URL and its wrappers."""
    return str(error).rpartition("): ")[2] or type(error).__name__
