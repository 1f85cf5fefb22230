"""Work in threads, for a main thread in which signals raise.

A signal's exception comes wherever the main thread is. Where that is inside of a `with` whose
`__enter__` is Python's, such as that of `threading.Condition` or of an HTTP client's pool, its lock
is taken and never given back, and whoever wants it next waits for ever. So what takes such locks is
done by threads, and the main thread waits in C alone. Nobody waits for those threads at the end.
"""

import _thread
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

import httpx
from typing_extensions import override

__all__ = ["ApartTransport", "together"]

A = TypeVar("A")
T = TypeVar("T")


def together(work: Callable[[A], T], given: Sequence[A]) -> list[T]:
    """Do the same with several things at once, each in a thread.

    Args:
        work: what is done.
        given: with each of these.

    Returns:
        What came of each, in their order.

    Raises:
        BaseException: the first that came of one.
    """
    ended: SimpleQueue[tuple[int, T] | BaseException] = SimpleQueue()

    def one(place: int, each: A) -> None:
        try:
            ended.put((place, work(each)))
        except BaseException as error:  # noqa: BLE001 - who waits for it raises it
            ended.put(error)

    for place, each in enumerate(given):
        _thread.start_new_thread(one, (place, each))
    done: dict[int, T] = {}
    while len(done) < len(given):
        outcome = ended.get()
        if isinstance(outcome, BaseException):
            raise outcome
        done[outcome[0]] = outcome[1]
    return [done[place] for place in range(len(given))]


class ApartTransport(httpx.BaseTransport):
    """Asks, and reads answers, in threads.

    Args:
        inner: does it.
    """

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Give the answer, all of it."""
        return together(self._whole, [request])[0]

    @override
    def close(self) -> None:
        self._inner.close()

    def _whole(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        response.read()
        return response
