"""Work on large bodies, beside the event loop.

Decoding and packing a megabyte of JSON takes some 8 ms, writing the answer for a megabyte of
protobuf some 15, and while it runs on the loop nobody else is served. So it is done there only
where it is short. Work on what is larger goes to a thread of its own, and is done in pieces of a
datum each: a thread gives way to the loop between two of them, never within one.

There is one such thread, not many: they would all be after the same interpreter, and the loop would
wait for its turn behind each of them. One more is there for what only copies megabytes from here to
there (joining pieces, writing a record, a digest): that takes milliseconds too, mostly while others
have the interpreter, and would be late behind somebody else's numbers.

Work that is short by itself holds up the loop too where one event sets much of it free, as the
answer of a shared request does for all of its callers. That is spread over turns of the loop.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

__all__ = ["GIVE_WAY_S", "LARGE_ANSWER_BYTES", "LARGE_BODY_BYTES", "TURN_BYTES", "Aside", "spread"]

T = TypeVar("T")

# A body below this is decoded in some 2 ms here, an answer below that in as long; on a machine of
# half the speed both are within the 5 ms that nothing may hold up the loop for. Handing work over
# and back costs some 0.1 ms.
LARGE_BODY_BYTES: Final = 256 * 1024
LARGE_ANSWER_BYTES: Final = 128 * 1024
# Of an answer that several callers share, as much is written to them in one turn of the loop, which
# takes some 2 ms. With a third of it the loop is late by half as much, and callers that come again
# one by one share less: a seventh fewer calls a second.
TURN_BYTES: Final = 96 * 1024
# How long a thread keeps the interpreter when another wants it, while there is such work
# (`sys.setswitchinterval`). Python's own 5 ms would hold up the loop for as long at each round;
# with 0.5 ms it was late by 0.8 ms at the median, with this by 0.4, and the work took no longer.
# At other times a shorter one costs 6 % of what the proxy can do: the HTTP client has a thread too.
GIVE_WAY_S: Final = 0.0001


class Aside:
    """The threads for what takes too long on the event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aside")
        self._copier = ThreadPoolExecutor(1, thread_name_prefix="copier")
        self._under_way = 0
        self._usual_s = sys.getswitchinterval()

    async def do(self, work: Callable[[], T], *, large: bool) -> T:
        """Do some work: in the thread if it is large, else here and now, with nothing awaited."""
        return await self._in(self._thread, work) if large else work()

    async def copy(self, work: Callable[[], T], *, large: bool) -> T:
        """The same for work that does little but copy."""
        return await self._in(self._copier, work) if large else work()

    async def _in(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        doing = asyncio.get_running_loop().run_in_executor(thread, work)
        self._count(1)
        doing.add_done_callback(lambda _: self._count(-1))
        return await doing

    def _count(self, more: int) -> None:
        """Have threads give way sooner as long as any work is under way."""
        self._under_way += more
        wanted_s = GIVE_WAY_S if self._under_way else self._usual_s
        if wanted_s != sys.getswitchinterval():
            sys.setswitchinterval(wanted_s)

    def close(self) -> None:
        """Start nothing more."""
        for thread in (self._thread, self._copier):
            thread.shutdown(wait=False, cancel_futures=True)


async def spread(work: Iterable[Callable[[], object]], *, at_a_time: int) -> None:
    """Do all of some work in order, so much of it in each turn of the event loop.

    All of it is done, whatever becomes of who asked: at once, if that one is cancelled.
    """
    left = deque(work)
    try:
        while left:
            for _ in range(min(at_a_time, len(left))):
                left.popleft()()
            if left:
                await asyncio.sleep(0)
    finally:
        while left:
            left.popleft()()
