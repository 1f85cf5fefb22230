"""`version`: what is installed, for a bug report."""

import argparse
import importlib.metadata
import platform
from typing import Final

from tinkex_proxy.cli.exits import OK
from tinkex_proxy.cli.options import Commands

__all__ = ["add", "version"]

FLAVOURS: Final = "Tinker API v1: protobuf (as SDKs since 0.25 send it) and JSON (as those before)"


def version() -> str:
    """The version of this package."""
    return importlib.metadata.version("tinkex-proxy")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("version", help="say what is installed", allow_abbrev=False)
    parser.set_defaults(run=_run)


def _run(_: argparse.Namespace) -> int:
    transports = ", ".join(f"{name} {_installed(name)}" for name in ("pyqwest", "httpx"))
    print(f"tinkex-proxy  {version()}")
    print(f"Python        {platform.python_version()} on {platform.platform(terse=True)}")
    print(f"transports    {transports}")
    print(f"upstream API  {FLAVOURS}")
    return OK


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
