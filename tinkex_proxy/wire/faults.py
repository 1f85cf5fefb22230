"""What is wrong with a body, told to the person who sent it.

msgspec finds a fault in C and names it in its own words (``Expected `int`, got `str` - at
`$.data[3]` ``). Here those words become an RFC 6901 pointer and a sentence that names the place,
the kind that was found, the kind that belongs there, and an example, which comes from the same
`Meta` that documents the field in the OpenAPI page. Nothing here runs for a good body, so it may
be slow: it walks the body again to learn a key that msgspec writes as `[...]`.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec

from tinkex_proxy.errors import InvalidJson, InvalidRequest
from tinkex_proxy.wire.walk import Place, walk

__all__ = ["Steps", "check_utf8", "nearest", "read", "read_body", "refuse"]

T = TypeVar("T")

# Keys and indices from the body to a value in it. A tuple costs a good body next to nothing; the
# pointer is written when there is somebody to read it.
Steps = tuple[str | int, ...]

_PARTS: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_EXPECTED: Final = re.compile(r"^Expected `(?P<want>.*?)`(?P<limit>[^,]*)(, got `(?P<got>.*)`)?$")
_FIELD: Final = re.compile(
    r"^Object .*(?P<kind>missing|unknown).* field `(?P<name>.*)`$", re.DOTALL
)
_BYTE: Final = re.compile(r"^JSON is malformed: (?P<what>.*) \(byte (?P<at>\d+)\)$", re.DOTALL)
_ANYTHING: Final = msgspec.json.Decoder(msgspec.Raw)
_KINDS: Final = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bytes": "a base64 string",
    "bool": "true or false",
    "null": "null",
    "array": "an array",
    "object": "an object",
}


def read_body(decoder: msgspec.json.Decoder[T], raw: bytes) -> T:
    """Decode a whole body.

    Raises:
        InvalidJson: it is not JSON; the sentence says where.
        InvalidRequest: it is JSON, of another form.
    """
    check_utf8(raw)
    return read(decoder, raw)


def check_utf8(raw: bytes) -> None:
    """See that a whole body is text at all.

    Raises:
        InvalidJson: it is not; the sentence says where.
    """
    if raw.isascii():
        return
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        where = _position(raw, error.start)
        raise InvalidJson(
            f"The body is not UTF-8: byte 0x{raw[error.start]:02x} at {where}."
        ) from None


def read(decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw, at: Steps = ()) -> T:
    """Decode a body, or the piece of one that stands at `at`."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        misfit = str(error)
    except msgspec.DecodeError as error:
        raise _malformed(bytes(raw), str(error), at) from None
    except RecursionError:
        raise InvalidJson(f"{_subject(at)} is nested too deeply.") from None
    read(_ANYTHING, raw, at)  # msgspec stops at a misfit; what comes after it may be no JSON
    raise _misfit(decoder.type, raw, misfit, at)


def refuse(at: Steps, predicate: str) -> InvalidRequest:
    """The error that says what is wrong with the value at `at`."""
    return InvalidRequest(f"{_subject(at)} {predicate}", pointer=_pointer(at))


def nearest(name: str, known: Iterable[str]) -> str:
    """What was probably meant, and all that is known, as the end of a sentence."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean `{close[0]}`?" if close else "."
    return f"{meant} Known are {', '.join(names)}."


def _pointer(at: Steps) -> str:
    """As RFC 6901 writes it."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in at)


def _subject(at: Steps) -> str:
    return f"`{_pointer(at)}`" if at else "The body"


def _position(raw: bytes, at: int) -> str:
    line = raw.count(b"\n", 0, at) + 1
    column = len(raw[raw.rfind(b"\n", 0, at) + 1 : at].decode(errors="replace")) + 1
    return f"byte {at} (line {line}, column {column})"


def _malformed(raw: bytes, message: str, steps: Steps) -> InvalidJson:
    subject = _subject(steps)
    if not raw.strip():
        return InvalidJson(f"{subject} is empty; send a JSON object.")
    found = _BYTE.match(message)
    if found is None:  # the one fault that msgspec gives no position for
        what, at = "it ends too early (or holds half of a surrogate pair)", len(raw)
    else:
        what, at = found["what"], int(found["at"])
    return InvalidJson(f"{subject} is not JSON: {what} at {_position(raw, at)}.{_hint(raw, at)}")


def _hint(raw: bytes, at: int) -> str:
    if raw.startswith(b"\xef\xbb\xbf"):
        return " Send it without the byte order mark."
    if raw[at : at + 3] in {b"NaN", b"Inf"}:
        return " JSON has no NaN and no Infinity; send finite numbers."
    if raw[at : at + 1] == b"'":
        return " JSON strings stand in double quotes."
    return ""


def _misfit(form: object, raw: bytes | msgspec.Raw, message: str, at: Steps) -> InvalidRequest:
    parts = _PARTS.match(message)
    path = parts["path"] if parts else None
    what = parts["what"] if parts else message
    found = walk(form, raw, path or "")
    here = (*at, *found.steps)
    field = _FIELD.match(what)
    if field is None:
        return refuse(here, _sentence(what, found))
    if field["kind"] == "unknown":
        known = found.field_names()
        return refuse(
            here, f"has an unknown field `{field['name']}`{nearest(field['name'], known)}"
        )
    return refuse(here, f"lacks the field `{field['name']}`.{found.of(field['name']).example()}")


def _sentence(what: str, found: Place) -> str:
    """The predicate for a value of the wrong kind or out of bounds."""
    expected = _EXPECTED.match(what)
    if expected:
        kinds = dict.fromkeys(_KINDS.get(kind, kind) for kind in expected["want"].split(" | "))
        is_what = (
            f"is {_KINDS.get(expected['got'], expected['got'])}; it " if expected["got"] else ""
        )
        limit = (
            " that is not empty" if expected["limit"] == " of length >= 1" else expected["limit"]
        )
        return f"{is_what}must be {' or '.join(kinds)}{limit}.{found.example()}"
    if what.startswith("Invalid enum value"):
        return f"is none of {', '.join(found.choices())}."
    if what.endswith("out of range"):
        return "is too large a number."
    return f"is not right: {what}.{found.example()}"
