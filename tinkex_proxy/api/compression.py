"""Bodies that come compressed: SDKs send training data as zstd where the upstream asks for that."""

import io
from collections.abc import Mapping

import zstandard

from tinkex_proxy.api.asgi import too_large
from tinkex_proxy.errors import InvalidRequest

__all__ = ["inflated"]


def inflated(headers: Mapping[str, str], body: bytes, max_bytes: int) -> bytes:
    """The body as it was before it was compressed.

    Raises:
        InvalidRequest: it is compressed in another way, or not well.
        PayloadTooLarge: it is longer than `max_bytes`; no more than that is inflated to see it.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding != "zstd":
        raise InvalidRequest(f"Content-Encoding is {encoding!r}; send zstd, or the body as it is.")
    try:
        reader = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body))
        whole = reader.read(max_bytes + 1)
    except zstandard.ZstdError as error:
        raise InvalidRequest(f"The body is not zstd: {error}.") from None
    if len(whole) > max_bytes:
        raise too_large(len(whole), max_bytes)
    return whole
