"""`sandbox`."""

from tinkex_proxy.cli.options import Commands

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command."""
    commands.add_parser("sandbox", help="run the practice upstream", allow_abbrev=False)
