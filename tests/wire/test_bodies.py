import msgspec
import pytest
from tinker import types
from tinker.types.lora_config import LoraConfig

from tinkex_proxy.wire import bodies

STRUCTS = [getattr(bodies, name) for name in bodies.__all__]


@pytest.mark.parametrize("struct", STRUCTS)
def test_bodies_refuse_unknown_fields_and_do_not_change(struct: type[msgspec.Struct]) -> None:
    config = struct.__struct_config__
    assert config.forbid_unknown_fields
    assert config.frozen


def test_the_optimizers_defaults_are_the_sdks() -> None:
    assert msgspec.to_builtins(bodies.AdamParams()) == types.AdamParams().model_dump()


def test_the_samplers_defaults_are_the_sdks() -> None:
    assert msgspec.to_builtins(bodies.SamplingParams()) == types.SamplingParams().model_dump()


def test_a_new_models_defaults_are_the_sdks() -> None:
    ours = msgspec.to_builtins(bodies.CreateModel(base_model="b"))
    theirs = LoraConfig(rank=32).model_dump()
    assert {name: ours[name] for name in theirs} == theirs
