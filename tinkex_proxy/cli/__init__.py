"""The command line, one module per command.

Importing it loads the standard library and pydantic, no more: each command imports what it needs
when it runs, so that `version` and `check` do not pay for a server.
"""

from tinkex_proxy.cli.entry import main

__all__ = ["main"]
