import socket
import stat
from pathlib import Path

import pytest

from tinkex_proxy.api.listener import listen_tcp, listen_unix, url_of


def test_a_tcp_listener_sends_small_answers_at_once() -> None:
    """Without TCP_NODELAY an answer of two writes waits 40 ms for the peer."""
    with listen_tcp("127.0.0.1", 0) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_ipv6_is_written_in_brackets() -> None:
    with listen_tcp("::1", 0) as listener:
        assert url_of(listener).startswith("http://[::1]:")


def test_a_port_in_use_is_an_error() -> None:
    with listen_tcp("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        listen_tcp("127.0.0.1", first.getsockname()[1])


def test_a_unix_socket_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with listen_unix(path) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert url_of(listener) == f"unix:{path}"


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    listen_unix(path).close()
    assert path.is_socket()
    with listen_unix(path), pytest.raises(OSError, match="in use"):
        listen_unix(path)
