"""Reading a JSON body item by item of its array, without reading the items twice.

msgspec can leave items unread (`msgspec.Raw`), but to find where each ends it reads every number of
it, which costs two fifths of decoding them, and all in one call that nothing else in the process
can interrupt. Braces are found a hundred times faster: an item ends with the brace that closes its
first one. That is a guess, for a brace may stand in a text.

The guess is proved by what is done anyway. JSON is put together of whole values: if each piece is
one, and the body with a mark in place of the array's items is one with that mark there, then the
body is one with those pieces there. So the body around the items is decoded, then each item, and
nothing of it is believed if any of that fails: then the body is read as a whole, which also tells
what is wrong with it.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

import msgspec

from tinkex_proxy.errors import InvalidJson, InvalidRequest
from tinkex_proxy.wire.faults import Steps, read

__all__ = ["read_cut"]

T = TypeVar("T")
U = TypeVar("U")

_ANYTHING: Final = msgspec.json.Decoder(msgspec.Raw)
# Stands for the items; a body in which it stands already is not cut.
_MARK: Final = b'"\\u0000items\\u0000"'
# A smaller item msgspec reads sooner than its braces are found. In a large body it is cut all the
# same, for nothing else runs while msgspec reads.
_WORTH_BYTES: Final = 2 * 1024
_LARGE_BYTES: Final = 256 * 1024

_SPACE: Final = rb"[ \t\r\n]*"
_BEGIN: Final = re.compile(_SPACE + rb":" + _SPACE + rb"\[" + _SPACE + rb"(?=\{)")
_NEXT: Final = re.compile(_SPACE + rb"(?:," + _SPACE + rb"(?=\{)|(?=(\])))")


def read_cut(  # noqa: PLR0913 - what to read, how, and what becomes of it
    decoder: msgspec.json.Decoder[T],
    raw: bytes,
    name: bytes,
    items_of: Callable[[T], Sequence[msgspec.Raw]],
    use: Callable[[T, Sequence[msgspec.Raw]], U],
    at: Steps = (),
    *,
    unread: bool = False,
) -> U:
    """Decode a body, or the piece of one that stands at `at`, and use the items of its array.

    Args:
        decoder: decodes it; leaves the items unread.
        raw: the body, in UTF-8.
        name: what the array is called.
        items_of: gives the items of a body that was decoded.
        use: decodes every item, and gives what comes of all; it is called again if a proof fails.
        at: where it stands.
        unread: whether `use` leaves items unread, so that each has to be proved to be JSON.

    Raises:
        InvalidJson: it is not JSON.
        InvalidRequest: it is JSON, of another form.
    """
    if len(raw) >= _WORTH_BYTES and (pieces := _cut(raw, name)) is not None:
        with suppress(msgspec.DecodeError, RecursionError, InvalidJson, InvalidRequest):
            around = decoder.decode(pieces.around)
            if [bytes(one) for one in items_of(around)] == [_MARK]:
                items = map(_ANYTHING.decode, pieces.items) if unread else pieces.items
                return use(around, [*items])
    form = read(decoder, raw, at)
    return use(form, items_of(form))


class _Cut(NamedTuple):
    """A body with the mark in place of the items, and the items."""

    around: bytes
    items: list[msgspec.Raw]


def _cut(body: bytes, name: bytes) -> _Cut | None:
    """Cut a body by the first array with that name, if it is one of objects that is worth it."""
    named = body.find(b'"%b"' % name)
    opened = _BEGIN.match(body, named + len(name) + 2) if named >= 0 else None
    spans = _spans(body, opened.end()) if opened else []
    if opened is None or not spans:
        return None
    around = b"%b%b%b" % (body[: opened.end()], _MARK, body[spans[-1][1] :])
    if around.count(_MARK) != 1:
        return None
    view = memoryview(body)
    return _Cut(around, [msgspec.Raw(view[begin:end]) for begin, end in spans])


def _spans(body: bytes, begin: int) -> list[tuple[int, int]]:
    """Where each object begins and ends, from the first one's brace on; none if that is unclear."""
    spans: list[tuple[int, int]] = []
    depth, opening, closing = 0, begin, body.find(b"}", begin)
    while closing >= 0:
        if 0 <= opening < closing:
            depth += 1
            opening = body.find(b"{", opening + 1)
            continue
        depth -= 1
        if not depth:
            if not spans and closing - begin < _WORTH_BYTES and len(body) < _LARGE_BYTES:
                break
            spans.append((begin, closing + 1))
            after = _NEXT.match(body, closing + 1)
            if after is None:
                break
            if after[1]:
                return spans
            begin = after.end()
        closing = body.find(b"}", closing + 1)
    return []
