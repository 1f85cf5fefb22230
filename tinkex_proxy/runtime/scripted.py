"""A `Transport` that answers from a script: the network's twin, for faults no socket gives."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.transport import (
    Passed,
    Passing,
    Request,
    Response,
    TransportFault,
    decoded,
    encoded,
)

__all__ = ["ScriptedTransport"]


class ScriptedTransport:
    """Answers each request by asking a function.

    Args:
        answer: gives a response, or the fault that ends the exchange.
    """

    def __init__(self, answer: Callable[[Request], Response | Fault]) -> None:
        self._answer = answer
        self.requests: list[Request] = []
        self.closed = False

    async def send(self, request: Request) -> Response:
        """Note the request and answer it.

        Raises:
            TransportFault: the script says so.
        """
        self.requests.append(request)
        answer = self._answer(request)
        if isinstance(answer, Fault):
            raise TransportFault(answer, f"scripted {answer.value}")
        if request.on_head is not None:
            request.on_head()
        return answer

    @asynccontextmanager
    async def relay(self, passing: Passing) -> AsyncIterator[Passed]:
        """Note the request, as one that was read whole, and answer it in one piece.

        Raises:
            TransportFault: the script says so.
        """
        yield await self.relay_whole(passing)

    async def relay_whole(self, passing: Passing) -> Passed:
        """Note the request, as one that was read whole, and answer it.

        Raises:
            TransportFault: the script says so.
        """
        given = passing.body
        whole = given if isinstance(given, bytes) else b"".join([piece async for piece in given])
        noted = Request(
            passing.method,
            passing.path,
            decoded(passing.headers),
            whole,
        )
        answer = await self.send(noted)
        return Passed(
            answer.status,
            encoded(answer.headers.items()),
            answer.body,
        )

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True
