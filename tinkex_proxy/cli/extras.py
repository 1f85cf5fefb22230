"""Packages that only some commands need, and what to say when they are missing."""

import contextlib
from collections.abc import Iterator

from tinkex_proxy.cli.exits import CommandError

__all__ = ["needing_the_sandbox_extra"]


@contextlib.contextmanager
def needing_the_sandbox_extra(command: str) -> Iterator[None]:
    """Turn a missing package into the command that installs it.

    Args:
        command: which command needs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("tinkex_proxy"):
            raise
        raise CommandError(
            f"`tinkex-proxy {command}` needs {error.name}, which is not installed: "
            "pip install 'tinkex-proxy[sandbox]'"
        ) from error
