"""A `Transport` that answers from a script: the network's twin, for faults no socket gives."""

from collections.abc import Callable

from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.transport import Request, Response, TransportFault

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
        return answer

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True
