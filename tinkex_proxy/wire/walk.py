"""Following a path of msgspec's through a type and a body at once.

msgspec says where a fault is as `$.data[3].inputs[...]`: fields by name, array items by index, but
the key of an object with free keys as `[...]`. The type tells what may stand there and how an
example looks, the body tells which key it was.
"""

import json
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Union

import msgspec

__all__ = ["Place", "walk"]

_STEP: Final = re.compile(r"\.([^.\[]+)|\[([^\]]+)\]")
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ABSENT: Final = (types.NoneType, msgspec.UnsetType)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a path led.

    Attributes:
        steps: the keys and indices on the way.
        form: the type that belongs there.
        name: the last field with a name on the way.
        whole: the type of that field, its annotations included.
    """

    steps: tuple[str | int, ...]
    form: object
    name: str = ""
    whole: object = None

    def field_names(self) -> Iterable[str]:
        """The fields that an object at this place may have."""
        return _hints(self.form)

    def of(self, name: str) -> "Place":
        """The place of one of those fields."""
        hint = _hints(self.form)[name]
        return Place((*self.steps, name), _bare(hint), name, hint)

    def choices(self) -> list[str]:
        """The values that are allowed here, where they are listed."""
        return [json.dumps(value) for value in typing.get_args(self.form)]

    def example(self) -> str:
        """A sentence with an example of the named field, or nothing."""
        examples = [meta.examples[0] for meta in _metas(self.whole) if meta.examples]
        return f' Example: "{self.name}": {json.dumps(examples[0])}.' if examples else ""


def walk(form: object, raw: bytes | msgspec.Raw, path: str) -> Place:
    """Follow `path` from a body `raw` of the type `form`."""
    at = Place((), _bare(form))
    piece: bytes | msgspec.Raw | None = raw
    for name, index in _STEP.findall(path):
        if name:
            at = at.of(name)
            piece = _inside(piece, name)
            continue
        inner = _bare(typing.get_args(at.form)[-1])
        key = _culprit(piece, inner) if index == "..." else int(index)
        piece = _inside(piece, key)
        at = Place((*at.steps, key), inner, at.name, at.whole)
    return at


def _inside(piece: bytes | msgspec.Raw | None, step: str | int) -> msgspec.Raw | None:
    """The value under a key or index; None where a repeated key hides the one that was meant."""
    if piece is None:
        return None
    try:
        return _OBJECT.decode(piece)[step] if isinstance(step, str) else _ARRAY.decode(piece)[step]
    except (msgspec.DecodeError, LookupError):
        return None


def _culprit(piece: bytes | msgspec.Raw | None, inner: object) -> str:
    """The first key whose value is not an `inner`."""
    try:
        values = _OBJECT.decode(piece if piece is not None else b"{}")
    except msgspec.DecodeError:
        values = {}
    return next((key for key, value in values.items() if not _fits(value, inner)), "...")


def _fits(value: msgspec.Raw, form: object) -> bool:
    try:
        msgspec.json.decode(value, type=form)
    except msgspec.ValidationError:
        return False
    return True


def _hints(form: object) -> dict[str, object]:
    return typing.get_type_hints(form, include_extras=True)


def _metas(hint: object) -> list[msgspec.Meta]:
    if isinstance(hint, msgspec.Meta):
        return [hint]
    if typing.get_origin(hint) in {Annotated, Union, types.UnionType}:
        return [meta for part in typing.get_args(hint) for meta in _metas(part)]
    return []


def _bare(hint: object) -> object:
    """The type without its annotations and without the ways to leave it out."""
    if typing.get_origin(hint) is Annotated:
        return _bare(typing.get_args(hint)[0])
    if typing.get_origin(hint) in {Union, types.UnionType}:
        present = [form for form in typing.get_args(hint) if form not in _ABSENT]
        return _bare(present[0]) if len(present) == 1 else hint
    return hint
