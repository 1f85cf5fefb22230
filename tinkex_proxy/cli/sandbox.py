"""`sandbox`: the upstream that needs no key, alone."""

import argparse
import dataclasses
import errno
import socket
from typing import Final

from tinkex_proxy.cli.exits import OK, CommandError
from tinkex_proxy.cli.extras import needing_the_sandbox_extra
from tinkex_proxy.cli.listeners import describe_port_owner
from tinkex_proxy.cli.options import Commands

__all__ = ["DEFAULT_PORT", "add"]

DEFAULT_PORT: Final = 8466  # beside the proxy's own


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "sandbox",
        help="run only the embedded upstream: a toy model that really trains, for trying and tests",
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1]")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help=f"port; 0 takes a free one [{DEFAULT_PORT}]"
    )
    parser.add_argument(
        "--flavour",
        choices=("both", "protobuf", "json"),
        default="both",
        help="training bodies it takes [both]",
    )
    parser.add_argument(
        "--tick-ms",
        type=float,
        default=0.0,
        metavar="MS",
        help="length of its engine's cycle; a real trainer has 100 and more [0]",
    )
    parser.add_argument(
        "--session-timeout-s",
        type=float,
        default=300.0,
        metavar="S",
        help="a session without a heartbeat for so long ends [300]",
    )
    parser.add_argument(
        "--api-key", action="append", metavar="KEY", help="accept only this key (repeatable) [any]"
    )
    parser.add_argument("--model", action="append", metavar="NAME", help="offer this base model")
    parser.add_argument("--seed", type=int, default=0, help="of the base model's weights [0]")
    _add_faults(parser)
    parser.set_defaults(run=_run)


def _add_faults(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("faults", "docs/sandbox.md describes each, with examples")
    group.add_argument(
        "--fault",
        action="append",
        type=_fault,
        metavar="KIND[:NAME=VALUE,...]",
        help="let something go wrong, such as error:status=503,rate=0.05 or reset:from_s=20,for_s=5"
        " (repeatable); GET, PUT and DELETE /sandbox/faults change it at run time",
    )
    group.add_argument(
        "--fault-seed",
        type=int,
        default=0,
        metavar="N",
        help="the same seed hits the same requests [0]",
    )


def _fault(text: str) -> object:
    from tinkex_proxy.sandbox.faults import BadFault  # noqa: PLC0415 - msgspec, when needed
    from tinkex_proxy.sandbox.plans import read_fault  # noqa: PLC0415

    try:
        return read_fault(text)
    except BadFault as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _run(chosen: argparse.Namespace) -> int:
    with needing_the_sandbox_extra("sandbox"):
        from tinkex_proxy.cli import sandbox_server  # noqa: PLC0415 - numpy, when needed

    defaults = sandbox_server.Options()
    options = dataclasses.replace(
        defaults,
        flavours=chosen.flavour,
        tick_s=chosen.tick_ms / 1000,
        session_timeout_s=chosen.session_timeout_s,
        api_keys=frozenset(chosen.api_key or ()),
        models=tuple(chosen.model or defaults.models),
        seed=chosen.seed,
        faults=sandbox_server.Plan(faults=tuple(chosen.fault or ()), seed=chosen.fault_seed),
    )
    with _listen(chosen.host, chosen.port) as listener:
        sandbox_server.run(options, listener)
    return OK


def _listen(host: str, port: int) -> socket.socket:
    from tinkex_proxy.api.listener import listen_tcp  # noqa: PLC0415 - uvicorn, when needed

    try:
        return listen_tcp(host, port)
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE:
            why = f"the port is in use by {describe_port_owner(port)}"
        raise CommandError(f"cannot listen on {host}:{port}: {why}") from error
