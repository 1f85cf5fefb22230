from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import UNSET, Meta, UnsetType

from tinkex_proxy.wire.walk import walk


class Inner(msgspec.Struct):
    number: Annotated[int, Meta(examples=[7])] = 0
    kind: Literal["a", "b"] = "a"


class Outer(msgspec.Struct):
    inner: Inner | UnsetType | None = UNSET
    many: Annotated[list[Inner], Meta(description="no example")] = []
    free: dict[str, Inner] | None = None
    either: int | str = 0


def path_of(body: bytes) -> str:
    """The path as msgspec writes it."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(body, type=Outer)
    return str(caught.value).partition("`$")[2].rstrip("`")


@pytest.mark.parametrize(
    ("body", "steps"),
    [
        (b'{"inner":{"number":"x"}}', ("inner", "number")),
        (b'{"many":[{},{"number":"x"}]}', ("many", 1, "number")),
        (b'{"free":{"good":{},"a/b":{"number":"x"}}}', ("free", "a/b", "number")),
        (b'{"either":null}', ("either",)),
        (b"[]", ()),
    ],
)
def test_a_path_becomes_keys_and_indices(body: bytes, steps: tuple[str | int, ...]) -> None:
    assert walk(Outer, body, path_of(body)).steps == steps


@pytest.mark.parametrize(
    "body",
    [
        b'{"free":{"a":{"number":"x"},"a":{}}}',
        b'{"free":{"a":{"number":"x"}},"free":[]}',
        b'{"free":{"a":{"number":"x"}},"free":{}}',
        b'{"many":[{"number":"x"}],"many":[]}',
    ],
)
def test_a_repeated_key_that_hides_the_fault_is_no_fault_of_ours(body: bytes) -> None:
    """Of two equal keys msgspec reads both and a reader of the body sees the last."""
    assert walk(Outer, body, path_of(body)).steps[-1] == "number"


def test_the_place_knows_its_form() -> None:
    body = b'{"many":[{"number":"x"}]}'
    place = walk(Outer, body, path_of(body))
    assert place.form is int
    assert place.example() == ' Example: "number": 7.'
    assert walk(Outer, b"{}", ".many").example() == ""
    assert walk(Outer, b"{}", ".inner").of("kind").choices() == ['"a"', '"b"']
    assert list(walk(Outer, b"{}", "").field_names()) == ["inner", "many", "free", "either"]
    assert walk(Outer, b"{}", "").example() == ""
