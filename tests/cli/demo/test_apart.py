"""What a signal must not interrupt is done in threads, and waited for where it may raise."""

import signal
import threading
from collections.abc import Iterator

import httpx
import pytest

from tinkex_proxy.cli.demo.apart import ApartTransport, together


class Rung(Exception):  # noqa: N818 - no error
    pass


def ring(*_: object) -> None:
    raise Rung


def test_all_are_done_at_once_and_told_in_order() -> None:
    meeting = threading.Barrier(4)

    def meet(number: int) -> int:
        meeting.wait(timeout=30)
        return number * number

    assert together(meet, [3, 1, 2, 0]) == [9, 1, 4, 0]


def test_of_nothing_nothing_comes() -> None:
    assert together(str, []) == []


def test_the_first_error_is_raised_and_nobody_waits_for_the_others() -> None:
    never = threading.Event()

    def work(number: int) -> None:
        if number:
            raise ValueError(number)
        never.wait()

    with pytest.raises(ValueError, match="7"):
        together(work, [0, 7])
    never.set()


def test_a_signal_raises_while_it_waits() -> None:
    never = threading.Event()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(Rung):
            together(lambda _: never.wait(), [None])
    finally:
        signal.signal(signal.SIGALRM, before)
        never.set()


def test_an_answer_is_asked_for_and_read_in_a_thread() -> None:
    """Where the client takes locks, that is."""
    where = []

    class Pieces(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            where.append(threading.get_ident())
            yield b"the "
            yield b"answer"

    class Inner(httpx.BaseTransport):
        closed = False

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            where.append(threading.get_ident())
            return httpx.Response(200, stream=Pieces(), request=request)

        def close(self) -> None:
            self.closed = True

    inner = Inner()
    with httpx.Client(transport=ApartTransport(inner)) as client:
        assert client.get("http://proxy/").text == "the answer"
    assert inner.closed
    assert len(where) == 2
    assert threading.get_ident() not in where
