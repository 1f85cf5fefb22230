"""The end of a connection that is still listened to.

What it is for, `connections.py` says.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from typing_extensions import override

__all__ = ["HalfClosing"]

# A client that sends nothing for so long after its answer has nothing on the way any more...
SILENCE_S: Final = 1.0
# ...and one that sends on and on is not listened to for ever. nginx has 5 and 30 s.
LONGEST_S: Final = 30.0


class HalfClosing(asyncio.Transport):
    """A transport whose `close` half-closes, reads on, and closes when the client has.

    The head of an answer waits until the end of the event loop's turn for the beginning of its
    body: uvicorn writes them one after the other, and each write wakes the client.

    Args:
        inner: the transport.
        loop: calls later.

    Attributes:
        parting: whether it is half-closed, or gone.
    """

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._later = loop.call_later
        self._soon = loop.call_soon
        self._head_is_next = False
        self._head: bytes | bytearray | memoryview | None = None
        self.parting = False
        self._heard = False
        self._looks = 0
        self._next_look: asyncio.TimerHandle | None = None

    @override
    def close(self) -> None:
        if self.parting:
            return
        self.parting = True
        self._flush()
        if self._inner.is_closing() or not self._inner.can_write_eof():
            self._inner.close()
            return
        self._inner.write_eof()
        self._inner.resume_reading()
        self._next_look = self._later(SILENCE_S, self._look)

    def heard(self) -> None:
        """Note that the client still sends."""
        self._heard = True

    def gone(self) -> None:
        """Note that the connection is no more."""
        self._head, self.parting = None, True
        if self._next_look is not None:
            self._next_look.cancel()

    def _look(self) -> None:
        """Close if the client has been silent; what it has not fetched yet is still sent."""
        self._looks += 1
        if self._heard and self._looks * SILENCE_S < LONGEST_S:
            self._heard = False
            self._next_look = self._later(SILENCE_S, self._look)
        else:
            self._inner.close()

    @override
    def is_closing(self) -> bool:
        return self.parting or self._inner.is_closing()

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.parting:  # it would be taken ill behind the end, and nobody gets it
            return
        if self._head is not None:
            head, self._head = self._head, None
            self._inner.writelines((head, data) if data else (head,))
        elif self._head_is_next:
            self._head_is_next, self._head = False, data
            self._soon(self._flush)
        else:
            self._inner.write(data)

    @override
    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        if self.parting:
            return
        self._head_is_next = False
        self._flush()
        self._inner.writelines(list_of_data)

    def expect_head(self) -> None:
        """Take what is written next for a head."""
        self._head_is_next = True

    def _flush(self) -> None:
        """Write a head whose body has not come with it."""
        if self._head is not None:
            head, self._head = self._head, None
            self._inner.write(head)

    @override
    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._inner.get_extra_info(name, default)

    @override
    def pause_reading(self) -> None:
        self._inner.pause_reading()

    @override
    def resume_reading(self) -> None:
        self._inner.resume_reading()
