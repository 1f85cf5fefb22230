"""Running a proxy: the listener, the signals, the end.

The first SIGTERM or SIGINT makes readiness false, lets no batch linger, waits for the calls in
flight and stops; a second one stops at once.
"""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Coroutine

import structlog
import uvicorn
from platformdirs import user_state_path

from tinkex_proxy.api.listener import ListeningServer, listen_tcp, listen_unix, url_of
from tinkex_proxy.assembly import build
from tinkex_proxy.config import Settings
from tinkex_proxy.runtime.logs import configure_logs
from tinkex_proxy.runtime.sqlite_store import SqliteStore, journal_path
from tinkex_proxy.runtime.store import Store, StoreBusy, StoreDamaged, StoreError, StoreTooNew

__all__ = ["open_store", "serve"]

# Far more than calls that one process holds; a limit of a billion makes some libraries slow.
MAX_FILES = 65_536


def serve(settings: Settings, *, on_ready: Callable[[str], None] | None = None) -> int:
    """Run a proxy until a signal ends it; gives the process's exit status.

    Args:
        settings: the configuration.
        on_ready: told the URL once the listener is up.

    Raises:
        OSError: the address cannot be listened on.
        StoreError: the journal cannot be used, and nothing is to go on without.
    """
    configure_logs(settings.log.level, settings.log.format)
    _allow_many_files()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(_listen(settings)))
        store = open_store(settings)
        if store is not None:
            stack.enter_context(contextlib.closing(store))
        runner = stack.enter_context(asyncio.Runner(loop_factory=_loop_factory()))
        return runner.run(_run(settings, listener, store, on_ready))


def open_store(settings: Settings) -> Store | None:
    """Open the journal's store; None where there is to be none.

    Raises:
        StoreBusy, StoreDamaged, StoreTooNew: it cannot be used as it is.
        StoreError: it cannot be opened, and `journal.on_failure` is `refuse`.
    """
    chosen = settings.journal
    if not chosen.enabled:
        return None
    folder = chosen.state_dir or user_state_path("tinkex-proxy")
    path = journal_path(folder, settings.upstream.base_url)
    try:
        return SqliteStore(path, durable=chosen.sync == "full", max_bytes=chosen.max_bytes)
    except (StoreBusy, StoreDamaged, StoreTooNew):
        raise
    except StoreError as error:
        if chosen.on_failure == "refuse":
            raise
        structlog.get_logger("tinkex_proxy").error(
            "there is no journal: a restart will forget models, calls and answers",
            reason=str(error),
        )
        return None


def _allow_many_files() -> None:
    """Raise the limit of open files as far as we may: each call held takes two connections.

    The soft limit is low for the sake of programs that use `select`; Go's runtime does the same.
    """
    try:
        import resource  # noqa: PLC0415 - not on every platform
    except ImportError:  # pragma: no cover
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS allows less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:  # pragma: no cover
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _listen(settings: Settings) -> socket.socket:
    server = settings.server
    return listen_tcp(server.host, server.port) if server.uds is None else listen_unix(server.uds)


async def _run(
    settings: Settings,
    listener: socket.socket,
    store: Store | None,
    on_ready: Callable[[str], None] | None,
) -> int:
    proxy = build(settings, store=store)
    config = uvicorn.Config(
        proxy.app,
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.calls.shutdown_grace_s),
    )
    server = ListeningServer(config)
    loop = asyncio.get_running_loop()
    stop, at_once = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            server.force_exit = True
            at_once.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    running = loop.create_task(server.serve(sockets=[listener]))
    await _first_of(running, server.up.wait())
    gc.freeze()  # what start-up made lives as long as the process: no need to look at it again
    if on_ready is not None and server.started:
        on_ready(url_of(listener))
    await _first_of(running, stop.wait())
    grace_ends = loop.time() + settings.calls.shutdown_grace_s
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.calls.shutdown_grace_s):
            await _first_of(running, proxy.drain(), at_once.wait())
    proxy.release()
    # Drained calls are answered; what is left are long polls that are passed on.
    config.timeout_graceful_shutdown = max(1, int(grace_ends - loop.time()))
    server.should_exit = True
    await running
    return 0 if server.started else 1


async def _first_of(
    running: asyncio.Task[None], *others: Coroutine[object, object, object]
) -> None:
    """Wait until the server has ended or one of the others is done; end the others."""
    tasks = [asyncio.get_running_loop().create_task(other) for other in others]
    try:
        await asyncio.wait([running, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
