import json
from collections.abc import Iterator

import pytest

from tinkex_proxy.wire import plain
from tinkex_proxy.wire.openapi import openapi_schemas

SCHEMAS = openapi_schemas()


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(target := node.get("$ref"), str):
            yield target
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def test_every_reference_leads_somewhere() -> None:
    assert set(references(SCHEMAS)) <= {f"#/components/schemas/{name}" for name in SCHEMAS}


def test_the_document_can_be_written() -> None:
    assert json.loads(json.dumps(SCHEMAS)) == json.loads(json.dumps(openapi_schemas()))


@pytest.mark.parametrize(
    ("name", "decode"),
    [
        ("CreateModel", plain.decode_create_model),
        ("Training", plain.decode_training),
        ("TrainingBatch", plain.decode_training_batch),
        ("OptimStep", plain.decode_optim_step),
        ("OptimStepBatch", plain.decode_optim_step_batch),
        ("Sample", plain.decode_sample),
        ("SaveWeights", plain.decode_save_weights),
        ("LoadWeights", plain.decode_load_weights),
    ],
)
def test_every_example_is_accepted(name: str, decode: object) -> None:
    for example in SCHEMAS[name]["examples"]:
        decoded = decode(json.dumps(example).encode())
        assert (
            not [item for item in decoded if isinstance(item, Exception)]
            if isinstance(decoded, list)
            else decoded
        )


def test_a_datum_has_two_forms_and_chunks_have_kinds() -> None:
    datum = {form["title"]: form for form in SCHEMAS["Datum"]["anyOf"]}
    assert datum["short form"]["required"] == ["tokens", "targets"]
    assert set(datum["short form"]["properties"]) == {"tokens", "targets", "weights"}
    assert set(datum["Tinker's own form"]["properties"]) == {"model_input", "loss_fn_inputs"}
    kinds = {kind["title"]: kind["required"] for kind in SCHEMAS["Chunk"]["anyOf"]}
    assert kinds["encoded_text"] == ["tokens"]
    assert kinds["image"] == ["data", "format", "type"]


def test_arrays_say_what_is_in_them() -> None:
    root = "#/components/schemas/"
    items = {
        name: SCHEMAS[name]["properties"][field]["items"]["$ref"].removeprefix(root)
        for name, field in [
            ("Training", "data"),
            ("TrainingBatch", "requests"),
            ("OptimStepBatch", "requests"),
            ("ModelInput", "chunks"),
        ]
    }
    assert items == {
        "Training": "Datum",
        "TrainingBatch": "Training",
        "OptimStepBatch": "OptimStep",
        "ModelInput": "Chunk",
    }
