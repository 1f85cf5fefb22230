"""Exit statuses, as BSD's sysexits.h names them, so that a supervisor can tell them apart."""

from typing import Final

__all__ = ["BAD_CONFIGURATION", "FAILED", "INTERRUPTED", "OK", "UNAVAILABLE", "CommandError"]

OK: Final = 0
FAILED: Final = 1
# Something needed is not there: an upstream, a port, a package of an extra.
UNAVAILABLE: Final = 69
# Restarting will not help; the systemd unit does not try.
BAD_CONFIGURATION: Final = 78
INTERRUPTED: Final = 130


class CommandError(Exception):
    """A command cannot go on; the message is for a person.

    Args:
        message: what is wrong and what to do.
        status: the exit status.
    """

    def __init__(self, message: str, *, status: int = UNAVAILABLE) -> None:
        super().__init__(message)
        self.status = status
