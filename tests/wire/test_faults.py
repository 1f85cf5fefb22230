import json
import string
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from tinkex_proxy.errors import InvalidJson, InvalidRequest
from tinkex_proxy.wire.faults import nearest, read, read_body, refuse


class Form(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1, examples=["ada"])]
    age: Annotated[int, Meta(ge=0)] = 0
    sizes: Annotated[list[float], Meta(examples=[[1.5]])] = []
    either: int | str | None = None
    kind: Literal["a", "b"] = "a"
    data: bytes = b""
    free: dict[str, object] = {}


DECODER = msgspec.json.Decoder(Form)


def fault(body: bytes) -> InvalidJson | InvalidRequest:
    with pytest.raises((InvalidJson, InvalidRequest)) as caught:
        read_body(DECODER, body)
    return caught.value


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "The body is empty; send a JSON object."),
        (b" \n", "The body is empty; send a JSON object."),
        (
            b'{\n  "name": "a",\n}',
            "The body is not JSON: trailing comma in object at byte 17 (line 3, column 1).",
        ),
        (
            '{"name": "żółw" 1}'.encode(),
            "The body is not JSON: expected ',' or '}' at byte 19 (line 1, column 17).",
        ),
        (
            b'{"name": "a',
            (
                "The body is not JSON: it ends too early (or holds half of a surrogate pair) "
                "at byte 11 (line 1, column 12)."
            ),
        ),
        (
            b'{"sizes": [1, NaN]}',
            (
                "The body is not JSON: invalid character at byte 14 (line 1, column 15). "
                "JSON has no NaN and no Infinity; send finite numbers."
            ),
        ),
        (
            b'{"sizes": [-Infinity]}',
            (
                "The body is not JSON: invalid character at byte 12 (line 1, column 13). "
                "JSON has no NaN and no Infinity; send finite numbers."
            ),
        ),
        (
            b"{'name': 1}",
            (
                "The body is not JSON: object keys must be strings at byte 1 (line 1, column 2). "
                "JSON strings stand in double quotes."
            ),
        ),
        (
            b"\xef\xbb\xbf{}",
            (
                "The body is not JSON: invalid character at byte 0 (line 1, column 1). "
                "Send it without the byte order mark."
            ),
        ),
        (b'{"name": "\xff"}', "The body is not UTF-8: byte 0xff at byte 10 (line 1, column 11)."),
        (b'{"free": {"a":' + b"[" * 10_000, "The body is nested too deeply."),
    ],
)
def test_broken_json_is_told_with_its_position(body: bytes, sentence: str) -> None:
    error = fault(body)
    assert isinstance(error, InvalidJson)
    assert error.detail == sentence


@pytest.mark.parametrize(
    ("body", "pointer", "sentence"),
    [
        ("[]", "", "The body is an array; it must be an object."),
        ("{}", "", 'The body lacks the field `name`. Example: "name": "ada".'),
        (
            '{"nmae": 1}',
            "",
            (
                "The body has an unknown field `nmae`; did you mean `name`? "
                "Known are age, data, either, free, kind, name, sizes."
            ),
        ),
        (
            '{"name": 1}',
            "/name",
            '`/name` is an integer; it must be a string. Example: "name": "ada".',
        ),
        (
            '{"name": ""}',
            "/name",
            '`/name` must be a string that is not empty. Example: "name": "ada".',
        ),
        ('{"age": -1}', "/age", "`/age` must be an integer >= 0."),
        ('{"age": 1.5}', "/age", "`/age` is a number; it must be an integer."),
        (
            '{"sizes": [1, true]}',
            "/sizes/1",
            '`/sizes/1` is true or false; it must be a number. Example: "sizes": [1.5].',
        ),
        ('{"sizes": [1, 1e999]}', "/sizes/1", "`/sizes/1` is too large a number."),
        (
            '{"either": []}',
            "/either",
            "`/either` is an array; it must be an integer or a string or null.",
        ),
        ('{"kind": "c"}', "/kind", '`/kind` is none of "a", "b".'),
        ('{"data": "@"}', "/data", "`/data` is not right: Invalid base64 encoded string."),
    ],
)
def test_a_value_of_another_form_is_named(body: str, pointer: str, sentence: str) -> None:
    """Where it stands, what it is, what belongs there, and an example."""
    error = fault(body.encode())
    assert isinstance(error, InvalidRequest)
    assert (error.pointer, error.detail) == (pointer, sentence)


def test_a_piece_is_named_by_its_place_in_the_body() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(DECODER, b'{"name": 1}', ("data", 3))
    assert caught.value.pointer == "/data/3/name"
    with pytest.raises(InvalidJson, match=r"^`/data/3` is not JSON: .* at byte 1 "):
        read(DECODER, b"{]", ("data", 3))


@given(st.lists(st.one_of(st.text("ab/~", max_size=4), st.integers(0, 9)), max_size=4))
def test_pointers_are_rfc_6901(steps: list[str | int]) -> None:
    pointer = refuse(tuple(steps), "is wrong.").pointer
    assert pointer is not None
    read_back = [s.replace("~1", "/").replace("~0", "~") for s in pointer.split("/")[1:]]
    assert read_back == [str(step) for step in steps]


def test_without_anything_near_the_known_names_help() -> None:
    assert nearest("zzz", {"b", "a"}) == ". Known are a, b."
    assert nearest("aab", {"b", "aaa"}) == "; did you mean `aaa`? Known are aaa, b."


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(string.printable, max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/", max_size=2), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(Form.__struct_fields__), JSON), st.binary(max_size=3))
def test_any_body_is_read_or_explained(body: dict[str, object], junk: bytes) -> None:
    """No other exception, whatever is sent."""
    raw = json.dumps(body).encode()
    middle = len(raw) // 2
    for text in (raw, raw[:middle] + junk + raw[middle:]):
        try:
            read_body(DECODER, text)
        except (InvalidJson, InvalidRequest) as error:
            assert error.detail.startswith(("The body ", "`/"))  # noqa: PT017 - either is fine
