"""`top`: a running proxy, live in a terminal.

Over `curses` of the standard library: a screen of text and some keys need no package.
"""

from tinkex_proxy.cli.top.command import add

__all__ = ["add"]
