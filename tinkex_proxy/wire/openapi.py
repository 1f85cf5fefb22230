"""The JSON schemas of the plain calls, from the structs that decode and encode them.

What those structs leave to a later stage is put together here: the two forms of a datum and the
kinds of chunk, each of which one struct decodes, the items of arrays that are decoded one by one,
and the numbers of answers, which may be JSON already.
"""

from collections.abc import Iterable
from typing import Final, cast

import msgspec

from tinkex_proxy.wire import answers, bodies
from tinkex_proxy.wire.forms import CHUNK_FIELDS, LONG_FORM, SHORT_FORM, ChunkForm, DatumForm
from tinkex_proxy.wire.sample import SampleAnswer

__all__ = ["openapi_schemas"]

Json = dict[str, object]

_ROOT: Final = "#/components/schemas/"
_BODIES: Final = tuple(getattr(bodies, name) for name in bodies.__all__)
_ANSWERS: Final = tuple(getattr(answers, name) for name in answers.__all__)


def openapi_schemas() -> dict[str, Json]:
    """The schema of every body and answer, by name, with examples."""
    _, made = msgspec.json.schema_components(
        (DatumForm, ChunkForm, SampleAnswer, *_BODIES, *_ANSWERS),
        schema_hook=lambda _: {"description": "any JSON value"},
        ref_template=_ROOT + "{name}",
    )
    schemas: dict[str, Json] = dict(made)
    for struct in _BODIES:
        body = schemas[struct.__name__]
        body["examples"] = [_example(body)]
    schemas["Sample"]["examples"] = [
        {**_example(schemas["Sample"]), "base_model": "Qwen/Qwen3-8B"}  # or another of the three
    ]
    chunks = _properties(schemas.pop("ChunkForm"))
    schemas["Chunk"] = {
        "anyOf": [
            _chunk(kind, {**chunks, "type": {"const": kind}}, required, optional)
            for kind, (required, optional) in CHUNK_FIELDS.items()
        ]
    }
    datum: Json = dict(_properties(schemas.pop("DatumForm")))
    schemas["Datum"] = {
        "anyOf": [
            _variant("short form", datum, SHORT_FORM[:2], SHORT_FORM[2:]),
            _variant("Tinker's own form", datum, LONG_FORM, ()),
        ]
    }
    _items(schemas["ModelInput"], "chunks", "Chunk")
    _items(schemas["Training"], "data", "Datum")
    _items(schemas["TrainingBatch"], "requests", "Training")
    _items(schemas["OptimStepBatch"], "requests", "OptimStep")
    numbers = _properties(schemas["TensorOut"])["data"]
    numbers |= {"type": "array", "items": {"type": "number"}}
    tokens = {"type": "array", "items": {"type": "integer"}}
    _properties(schemas["Sample"])["prompt"]["anyOf"] = [tokens, {"$ref": _ROOT + "ModelInput"}]
    return schemas


def _chunk(kind: str, properties: Json, required: frozenset[str], optional: frozenset[str]) -> Json:
    """`type` may be left out of a text chunk only."""
    if kind == "encoded_text":
        return _variant(kind, properties, sorted(required), [*optional, "type"])
    return _variant(kind, properties, sorted({*required, "type"}), optional)


def _variant(
    title: str, properties: Json, required: Iterable[str], optional: Iterable[str]
) -> Json:
    names = list(required)
    return {
        "title": title,
        "type": "object",
        "properties": {name: properties[name] for name in (*names, *optional)},
        "required": names,
        "additionalProperties": False,
    }


def _properties(schema: Json) -> dict[str, Json]:
    return cast("dict[str, Json]", schema["properties"])


def _items(schema: Json, name: str, of: str) -> None:
    _properties(schema)[name]["items"] = {"$ref": _ROOT + of}


def _example(schema: Json) -> Json:
    """The required fields, each with its first example."""
    properties = _properties(schema)
    required = cast("list[str]", schema["required"])
    return {name: cast("list[object]", properties[name]["examples"])[0] for name in required}
