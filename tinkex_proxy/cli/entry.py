"""From the arguments to a command, and from whatever happens to an exit status."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from tinkex_proxy.cli import check, demo, options, sandbox, serve, status, top, version
from tinkex_proxy.cli.exits import BAD_CONFIGURATION, INTERRUPTED, CommandError
from tinkex_proxy.config import ConfigError

__all__ = ["main"]

_COMMANDS: Final = (serve, demo, sandbox, check, status, top, version)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes the process's.

    Returns:
        The exit status.
    """
    chosen, unknown = _parser().parse_known_args(arguments)
    try:
        if unknown:
            options.refuse(unknown, configurable=chosen.configurable)
        outcome: int = chosen.run(chosen)
    except ConfigError as error:
        print(f"tinkex-proxy: {error}", file=sys.stderr)
        return BAD_CONFIGURATION
    except CommandError as error:
        print(f"tinkex-proxy: {error}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    return outcome


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tinkex-proxy",
        description="A sidecar that turns the Tinker training API into plain HTTP calls.",
        epilog="Start with `tinkex-proxy demo`: it needs no key and no network.",
        allow_abbrev=False,
    )
    parser.set_defaults(configurable=False)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser
