import os
import socket
from pathlib import Path

import pytest

from tinkex_proxy.cli.listeners import describe_port_owner, describe_socket_owner

HEADER = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode"
)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with one process, 42, that listens on 8465 (2111 hexadecimal)."""
    net = tmp_path / "net"
    net.mkdir()
    listening = "0: 0100007F:2111 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 777 1"
    connected = "1: 0100007F:2112 0100007F:2111 01 00000000:00000000 00:00000000 00000000 0 0 778 1"
    (net / "tcp").write_text(f"{HEADER}\n{listening}\n{connected}")
    process = tmp_path / "42"
    (process / "fd").mkdir(parents=True)
    (process / "fd" / "3").symlink_to("socket:[777]")
    (process / "fd" / "4").symlink_to("socket:[778]")
    (process / "cmdline").write_text("python3\0-m\0server\0--token=canary\0more\0")
    (tmp_path / "43").mkdir()
    return tmp_path


def test_the_listener_is_named_without_its_options(proc: Path) -> None:
    """A command line may hold secrets; the first words are enough to know it."""
    assert describe_port_owner(0x2111, proc=proc) == "process 42 (python3 server)"


def test_a_connection_is_not_a_listener(proc: Path) -> None:
    assert "another user" in describe_port_owner(0x2112, proc=proc)


def test_without_proc_nothing_is_claimed(tmp_path: Path) -> None:
    """macOS and the BSDs."""
    assert "ss -ltnp sport = :8465" in describe_port_owner(8465, proc=tmp_path)
    assert describe_socket_owner(tmp_path / "p.sock", proc=tmp_path) == "a process of another user"


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_we_find_ourselves(family: int, host: str) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        found = describe_port_owner(listener.getsockname()[1])
    assert found.startswith(f"process {os.getpid()} (")


def test_we_find_ourselves_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert describe_socket_owner(path) == "a process of another user"
        listener.listen()
        assert describe_socket_owner(path).startswith(f"process {os.getpid()} (")
