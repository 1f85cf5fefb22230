"""The proxy, made to kill itself at a chosen step of a chosen request.

    python -m tests.crash.doomed STEP NUMBER serve …

It is the program as it is, but for one seam, which is wrapped: when the step is reached for the
NUMBER-th time, the process gets SIGKILL, as from outside, with whatever it has in hand.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable

from tinkex_proxy import cli
from tinkex_proxy.runtime import lanes
from tinkex_proxy.runtime.http1_transport import Http1Transport
from tinkex_proxy.runtime.lane_pages import LanePages
from tinkex_proxy.runtime.ledger import Ledger

# Long enough for a request to be on its way to a server on this machine, too short for its answer.
ON_ITS_WAY_S = 0.001
SUBMITS = ("/forward_backward", "/optim_step")


class Doom:
    """Counts down, and strikes."""

    def __init__(self, number: int) -> None:
        self._left = number

    def comes(self) -> bool:
        """Whether this is the time."""
        self._left -= 1
        return self._left == 0

    def strike(self) -> None:
        """End this process, now."""
        os.kill(os.getpid(), signal.SIGKILL)


def before_journal(doom: Doom) -> None:
    write = LanePages.write

    async def doomed(self, *args, **more):
        if doom.comes():
            doom.strike()
        return await write(self, *args, **more)

    LanePages.write = doomed


def after_journal(doom: Doom) -> None:
    write = LanePages.write

    async def doomed(self, *args, **more):
        page = await write(self, *args, **more)
        if doom.comes():
            doom.strike()
        return page

    LanePages.write = doomed


def sent(doom: Doom) -> None:
    """While the request is on its way: the upstream may have it, or a part of it."""
    send = Http1Transport.send

    async def doomed(self, request):
        if request.path.endswith(SUBMITS) and doom.comes():
            asyncio.get_running_loop().call_later(ON_ITS_WAY_S, doom.strike)
        return await send(self, request)

    Http1Transport.send = doomed


def acted(doom: Doom) -> None:
    """The upstream has answered, so it has acted; we have not heard it."""
    send = Http1Transport.send

    async def doomed(self, request):
        response = await send(self, request)
        if request.path.endswith(SUBMITS) and doom.comes():
            doom.strike()
        return response

    Http1Transport.send = doomed


def answered(doom: Doom) -> None:
    """We have heard that it is admitted, and told the journal, which may not have written it."""
    admitted = LanePages.admitted

    def doomed(self, page, response, **more):
        admitted(self, page, response, **more)
        if doom.comes():
            doom.strike()

    LanePages.admitted = doomed


def split(doom: Doom) -> None:
    """The result is there and split; nobody has his part."""
    read = lanes.read

    def doomed(*args, **more):
        answers = read(*args, **more)
        if doom.comes():
            doom.strike()
        return answers

    lanes.read = doomed


def delivered(doom: Doom) -> None:
    """A caller's answer is ready, and being told to the journal and to the caller."""
    ended = Ledger._ended

    def doomed(self, entry):
        ended(self, entry)
        if doom.comes():
            doom.strike()

    Ledger._ended = doomed


STEPS: dict[str, Callable[[Doom], None]] = {
    step.__name__: step
    for step in (before_journal, after_journal, sent, acted, answered, split, delivered)
}


def main() -> int:
    """Be the proxy, until doom comes."""
    step, number = sys.argv[1:3]
    STEPS[step](Doom(int(number)))
    sys.argv[1:3] = []
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
