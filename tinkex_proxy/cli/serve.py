"""`serve`: the daemon."""

import argparse
import errno
import sys
from functools import partial
from typing import Final

from tinkex_proxy.cli.exits import CommandError
from tinkex_proxy.cli.listeners import describe_port_owner, describe_socket_owner
from tinkex_proxy.cli.options import Commands, add_settings, load_settings
from tinkex_proxy.cli.version import version
from tinkex_proxy.config import ConfigError, Settings, find_contradictions, find_warnings
from tinkex_proxy.runtime.imports import absent, uncollected

__all__ = ["add"]

# structlog would draw tracebacks with it, and ours are plain text before it sees them.
UNUSED_BY_IMPORTS: Final = ("rich",)
# FastAPI asks of each parameter of a route whether its type is a model of pydantic's first version.
UNUSED_BY_ROUTES: Final = ("pydantic.v1",)


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("serve", help="run the proxy", allow_abbrev=False)
    add_settings(parser)
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    settings = load_settings(chosen)
    contradictions = find_contradictions(settings)
    if contradictions:
        raise ConfigError(*contradictions)
    for warning in find_warnings(settings):
        print(f"tinkex-proxy: warning: {warning}", file=sys.stderr)
    with uncollected(), absent(*UNUSED_BY_IMPORTS):
        # A server's imports, when there is to be one.
        from tinkex_proxy import server  # noqa: PLC0415
        from tinkex_proxy.runtime.store import StoreError  # noqa: PLC0415

    try:
        with absent(*UNUSED_BY_ROUTES):
            return server.serve(
                settings,
                reread=partial(load_settings, chosen),
                on_ready=partial(_say_ready, settings),
            )
    except StoreError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise CommandError(_listen_problem(settings, error)) from error


def _say_ready(settings: Settings, url: str) -> None:
    print(
        f"tinkex-proxy {version()} is listening on {url} for {settings.upstream.base_url}",
        flush=True,
    )


def _listen_problem(settings: Settings, error: OSError) -> str:
    """Why the address cannot be had, and what to do."""
    server = settings.server
    place = f"{server.host}:{server.port}" if server.uds is None else str(server.uds)
    if error.errno != errno.EADDRINUSE:
        return f"cannot listen on {place}: {error.strerror or error}"
    if server.uds is not None:
        return f"{place} is in use by {describe_socket_owner(server.uds)}: stop it, or use --uds"
    owner = describe_port_owner(server.port)
    return f"port {server.port} is in use by {owner}: stop it, or choose another with --port"
