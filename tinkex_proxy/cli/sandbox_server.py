"""Runs the sandbox under uvicorn; imported only when one is to run, for numpy is large."""

import asyncio
import signal
import socket
from typing import Final

import uvicorn

from tinkex_proxy.api.listener import ListeningServer, url_of
from tinkex_proxy.sandbox.abort import AbortableProtocol
from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options
from tinkex_proxy.sandbox.plans import Plan

__all__ = ["Options", "Plan", "run"]

# Its polls are held for 45 s; whoever stops a sandbox does not wait for them.
GRACE_S: Final = 1


def run(options: Options, listener: socket.socket) -> None:
    """Serve a sandbox until a signal ends it.

    Args:
        options: what it is to be.
        listener: a bound socket.
    """
    asyncio.run(_serve(options, listener))


async def _serve(options: Options, listener: socket.socket) -> None:
    server = ListeningServer(
        uvicorn.Config(
            create_app(options),
            http=AbortableProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # The first signal stops it, a second one at once, with status 0: it was asked to.
        loop.add_signal_handler(number, server.handle_exit, number, None)
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    await server.up.wait()
    print(
        "SANDBOX, not a service: a toy model on this machine's CPU is listening on "
        f"{url_of(listener)}",
        flush=True,
    )
    await serving
