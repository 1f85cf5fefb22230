"""The head of a request; the connections are tried on both loops, in `loops`."""

import pytest

from tinkex_proxy.runtime.http1 import request_head


@pytest.mark.parametrize(
    ("method", "length", "line"),
    [
        ("POST", 0, b"content-length: 0\r\n"),
        ("POST", 7, b"content-length: 7\r\n"),
        ("GET", 7, b"content-length: 7\r\n"),
        ("GET", 0, b""),
        ("POST", None, b""),
    ],
)
def test_a_request_says_how_long_its_body_is_where_it_may_have_one(
    method: str, length: int | None, line: bytes
) -> None:
    head = request_head(method, "/a?b", [(b"x", b"1")], length)
    assert head == method.encode() + b" /a?b HTTP/1.1\r\nx: 1\r\n" + line + b"\r\n"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", []),
        ("/a\r\nx: 1", []),
        ("/a\n", []),
        ("/", [(b"x", b"1\r\ny: 2")]),
        ("/", [(b"x", b"1\n")]),
        ("/", [(b"x\r", b"1")]),
    ],
)
def test_nothing_gets_a_line_of_its_own_into_a_request(
    target: str, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(ValueError, match="line break or space"):
        request_head("GET", target, headers, 0)
