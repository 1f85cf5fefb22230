"""Runs the sandbox under uvicorn; imported only when one is to run, for numpy is large."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from typing_extensions import override

from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options

__all__ = ["Options", "run"]

# Its polls are held for 45 s; whoever stops a sandbox does not wait for them.
GRACE_S: Final = 1


class _Server(uvicorn.Server):
    """uvicorn that ends with status 0 on a signal, as a daemon asked to stop should."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.up.set()

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on the first signal, at once on the second; raise none of them again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def run(options: Options, listener: socket.socket) -> None:
    """Serve a sandbox until a signal ends it.

    Args:
        options: what it is to be.
        listener: a bound socket.
    """
    # asyncio sets this only on sockets it made itself; without it every answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    asyncio.run(_serve(options, listener))


async def _serve(options: Options, listener: socket.socket) -> None:
    server = _Server(
        uvicorn.Config(
            create_app(options),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    await server.up.wait()
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(
        "SANDBOX, not a service: a toy model on this machine's CPU is listening on "
        f"http://{shown}:{port}",
        flush=True,
    )
    await serving
