"""Running a proxy: the listener, the signals, the end.

The first SIGTERM or SIGINT, or `POST /drain`, begins the end:

1. *pausing*: readiness is false, and calls are still taken; answers say `Connection: close`, so
   that callers find their way to another proxy, if there is one;
2. *draining*: new calls are refused, open batches leave, calls in flight go on to their end, for
   `calls.shutdown_grace_s` at most; then those that are left are told that they may have run;
3. *leaving*: the listener is closed, polls that are held are told to come again, idle connections
   have a last moment, and the process ends with status 0.

A second signal ends it at once, wherever it is. SIGHUP has the configuration read again.
"""

import asyncio
import contextlib
import gc
import ipaddress
import math
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from functools import partial

import structlog
import uvicorn
from platformdirs import user_state_path

from tinkex_proxy.api.connections import Connection
from tinkex_proxy.api.listener import listen_tcp, listen_unix, url_of
from tinkex_proxy.api.parting import PartingServer
from tinkex_proxy.assembly import Proxy, build
from tinkex_proxy.config import Settings
from tinkex_proxy.errors import BadConfiguration
from tinkex_proxy.runtime.drain import Ending, Stage
from tinkex_proxy.runtime.logs import configure_logs
from tinkex_proxy.runtime.malloc import keep_memory
from tinkex_proxy.runtime.sqlite_file import journal_path
from tinkex_proxy.runtime.sqlite_store import SqliteStore
from tinkex_proxy.runtime.store import Store, StoreBusy, StoreDamaged, StoreError, StoreTooNew

__all__ = ["open_store", "serve"]

# Far more than calls that one process holds; a limit of a billion makes some libraries slow.
MAX_FILES = 65_536
# A call in flight is some hundred objects, of which garbage is looked for in some. To do so for
# 2,000 calls after every 700 that are made, as Python does by itself, or even after every 10,000,
# is an eighth of all work. What is thrown away is in no cycles, so that there is little to find.
COLLECT_AFTER = (50_000, 10, 10)
# Proxies on free ports before one upstream, each with a journal of its own.
MOST_ALIKE = 100
# What a load balancer or Kubernetes needs to see that we are not ready, and to act on it: the usual
# figure of a preStop hook.
PAUSE_BEYOND_LOOPBACK_S = 5.0
# When the grace is over: for the last answers to be written and fetched.
LAST_WORDS_S = 2.0


def serve(
    settings: Settings,
    *,
    reread: Callable[[], Settings] | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> int:
    """Run a proxy until a signal ends it; gives the process's exit status.

    Args:
        settings: the configuration.
        reread: reads its layers once more, for a reload.
        on_ready: told the URL once the listener is up.

    Raises:
        OSError: the address cannot be listened on.
        StoreError: the journal cannot be used, and nothing is to go on without.
    """
    configure_logs(settings.log.level, settings.log.format)
    _allow_many_files()
    # One thread of the HTTP client's own (tokio's) can do more than the one that runs Python; with
    # more, each answer wakes another that then waits for Python's lock: two took a third longer.
    os.environ.setdefault("TOKIO_WORKER_THREADS", "1")  # noqa: TID251 - written, for it to read
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(_listen(settings)))
        store = open_store(settings)
        if store is not None:
            stack.enter_context(contextlib.closing(store))
        runner = stack.enter_context(asyncio.Runner(loop_factory=_loop_factory()))
        proxy = build(settings, reread=reread, store=store)
        return runner.run(_run(proxy, listener, on_ready))


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
    *others, last = _listener_names(settings)
    open_one = partial(SqliteStore, durable=chosen.sync == "full", max_bytes=chosen.max_bytes)
    try:
        for listener in others:
            with contextlib.suppress(StoreBusy):
                return open_one(journal_path(folder, settings.upstream.base_url, listener))
        return open_one(journal_path(folder, settings.upstream.base_url, last))
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


def _listener_names(settings: Settings) -> list[str]:
    """By which names a journal may go: proxies on any free port are alike, and each takes one."""
    server = settings.server
    if server.uds is not None:
        return [str(server.uds)]
    if server.port:
        return [f"{server.host}:{server.port}"]
    return [f"{server.host}:any {number}" for number in range(MOST_ALIKE)]


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
    proxy: Proxy, listener: socket.socket, on_ready: Callable[[str], None] | None
) -> int:
    config = uvicorn.Config(
        proxy.app,
        interface="asgi3",
        http=Connection,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )
    server = PartingServer(config)
    _heed_signals(proxy)
    running = asyncio.get_running_loop().create_task(server.serve(sockets=[listener]))
    await _first_of(running, server.up.wait())
    keep_memory()
    gc.freeze()  # what start-up made lives as long as the process: no need to look at it again
    gc.set_threshold(*COLLECT_AFTER)
    if on_ready is not None and server.started:
        on_ready(url_of(listener))
    await _first_of(running, proxy.ending.asked.wait())
    await _end(proxy, server, running)
    return 0 if server.started else 1


def _heed_signals(proxy: Proxy) -> None:
    """SIGTERM and SIGINT end, SIGHUP reloads."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end_on, proxy.ending, number.name)
    if not hasattr(signal, "SIGHUP"):  # pragma: no cover - not on every platform
        return
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # under nohup
    mortal = _has_terminal() and not ignored

    def on_hangup() -> None:
        if mortal and not _has_terminal():
            _end_on(proxy.ending, "the end of the terminal")
            return
        with contextlib.suppress(BadConfiguration):  # the log has it
            proxy.reload()

    loop.add_signal_handler(signal.SIGHUP, on_hangup)


def _end_on(ending: Ending, why: str) -> None:
    """Begin the end; the second time, end now."""
    if ending.asked.is_set():
        ending.hurried.set()
    ending.ask(why)


def _has_terminal() -> bool:
    """Whether there is a terminal that controls us. One that is closed sends SIGHUP too."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def _end(proxy: Proxy, server: PartingServer, running: asyncio.Task[None]) -> None:
    """Go through the stages of the end."""
    ending, settings, loop = proxy.ending, proxy.reloads.settings, asyncio.get_running_loop()
    pause_s, grace_s = _pause_s(settings), settings.calls.shutdown_grace_s
    hurried = loop.create_task(ending.hurried.wait())

    def at_once(_: object) -> None:
        server.force_exit = True

    hurried.add_done_callback(at_once)
    server.say_farewell()
    proxy.pause()
    ending.enter(Stage.PAUSING, lasts_s=pause_s)
    await asyncio.wait([running, hurried], timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
    ending.enter(Stage.DRAINING, lasts_s=grace_s)
    grace_ends = loop.time() + grace_s
    draining = loop.create_task(proxy.drain())
    await asyncio.wait(
        [running, hurried, draining], timeout=grace_s, return_when=asyncio.FIRST_COMPLETED
    )
    draining.cancel()
    await proxy.cut_off()
    proxy.release()
    left_s = max(LAST_WORDS_S, grace_ends - loop.time())
    ending.enter(Stage.LEAVING, lasts_s=left_s)
    server.config.timeout_graceful_shutdown = math.ceil(left_s)
    server.leave(last_wait_s=settings.server.drain_linger_ms / 1000)
    await running
    hurried.cancel()


def _pause_s(settings: Settings) -> float:
    """How long calls are still taken once readiness is false."""
    server = settings.server
    if server.drain_pause_ms is not None:
        return server.drain_pause_ms / 1000
    if server.uds is not None or server.host == "localhost":
        return 0.0
    try:
        here = ipaddress.ip_address(server.host).is_loopback
    except ValueError:
        here = False
    return 0.0 if here else PAUSE_BEYOND_LOOPBACK_S


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
