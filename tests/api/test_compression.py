"""Compressed bodies are inflated, and never further than the cap."""

import tracemalloc

import pytest
import zstandard

from tinkex_proxy.api.compression import inflated
from tinkex_proxy.errors import InvalidRequest, PayloadTooLarge

ZSTD = {"content-encoding": "zstd"}


def test_a_body_that_is_not_compressed_is_given_as_it_is() -> None:
    body = b"as it is"
    assert inflated({}, body, 1) is body
    assert inflated({"content-encoding": "identity"}, body, 1) is body


def test_zstd_is_inflated_up_to_the_cap() -> None:
    body = b"abc" * 1000
    packed = zstandard.ZstdCompressor().compress(body)
    assert inflated(ZSTD, packed, 3000) == body
    with pytest.raises(PayloadTooLarge, match="2999"):
        inflated(ZSTD, packed, 2999)


def test_a_bomb_costs_no_more_than_the_cap() -> None:
    packed = zstandard.ZstdCompressor().compress(bytes(256 * 1024 * 1024))
    tracemalloc.start()
    with pytest.raises(PayloadTooLarge):
        inflated(ZSTD, packed, 1024 * 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


@pytest.mark.parametrize(("encoding", "said"), [("zstd", "not zstd"), ("gzip", "'gzip'")])
def test_what_cannot_be_inflated_is_refused(encoding: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        inflated({"content-encoding": encoding}, b"no such thing", 1000)
