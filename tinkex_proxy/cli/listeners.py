"""Who listens on a port: the answer to "address already in use".

Linux tells through `/proc`: a table of sockets with their inodes, and each process's descriptors.
Another user's descriptors cannot be read; then we say which command shows them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["describe_port_owner", "describe_socket_owner"]

_LISTEN: Final = "0A"
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON


def describe_port_owner(port: int, *, proc: Path = Path("/proc")) -> str:
    """Name the process that listens on a TCP port.

    Args:
        port: the port.
        proc: where the kernel's tables are.
    """
    return _owner(set(_tcp_inodes(port, proc)), proc) or (
        f"a process of another user (`ss -ltnp sport = :{port}` as root shows it)"
    )


def describe_socket_owner(path: Path, *, proc: Path = Path("/proc")) -> str:
    """Name the process that listens on a Unix socket."""
    return _owner(set(_unix_inodes(path, proc)), proc) or "a process of another user"


def _tcp_inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        for line in _lines(proc / "net" / table):
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _unix_inodes(path: Path, proc: Path) -> Iterator[str]:
    for line in _lines(proc / "net" / "unix"):
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and int(fields[3], 16) & _ACCEPTS and fields[7] == str(path):
            yield fields[6]


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text().splitlines()[1:]
    except OSError:
        return []


def _owner(inodes: set[str], proc: Path) -> str | None:
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to look at
            if any(str(fd.readlink()) in sockets for fd in (process / "fd").iterdir()):
                return f"process {process.name} ({_command(process)})"
    return None


def _command(process: Path) -> str:
    """Its command line without options' values, which may be secrets."""
    words = (process / "cmdline").read_text().split("\0")
    return " ".join(word for word in words[:4] if word and not word.startswith("-"))
