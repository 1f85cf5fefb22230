"""The command line, one module per command.

Importing it loads next to nothing, running it the standard library and pydantic: each command
imports what it needs when it runs, so that `version` and `check` do not pay for a server.
"""

from collections.abc import Sequence

from tinkex_proxy.runtime.imports import uncollected

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes the process's.

    Returns:
        The exit status.
    """
    with uncollected():
        # Here, for all of pydantic comes with it.
        from tinkex_proxy.cli import entry  # noqa: PLC0415
    return entry.main(arguments)
