"""`demo`."""

from tinkex_proxy.cli.options import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command."""
    commands.add_parser("demo", help="train a small model and show how", allow_abbrev=False)
