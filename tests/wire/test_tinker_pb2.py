"""The schema is the upstream's: numbers, names and types are held against the SDK's descriptor."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from tinker.proto import tinker_public_pb2 as sdk

from tinkex_proxy.wire import tinker_pb2 as ours

MESSAGES = sorted(ours.DESCRIPTOR.message_types_by_name)
ENUMS = sorted(ours.DESCRIPTOR.enum_types_by_name)
PROTO = Path(ours.__file__).with_name("tinker.proto")


def shape_of(message: object) -> object:
    """A message's descriptor without the name of its package."""
    proto = descriptor_pb2.DescriptorProto()
    message.CopyToProto(proto)
    text = str(proto)
    return text.replace(".tinkex_proxy.wire.v1.", ".").replace(".tinker_public.", ".")


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_is_the_sdks_field_by_field(name: str) -> None:
    theirs = sdk.DESCRIPTOR.message_types_by_name[name]
    mine = ours.DESCRIPTOR.message_types_by_name[name]
    assert {f.number: f.name for f in mine.fields} == {f.number: f.name for f in theirs.fields}
    assert shape_of(mine) == shape_of(theirs)


@pytest.mark.parametrize("name", ENUMS)
def test_every_enum_is_the_sdks(name: str) -> None:
    theirs = sdk.DESCRIPTOR.enum_types_by_name[name]
    mine = ours.DESCRIPTOR.enum_types_by_name[name]
    assert {v.number: v.name for v in mine.values} == {v.number: v.name for v in theirs.values}


def test_nothing_that_carries_training_or_samples_is_left_out() -> None:
    """What we do not have is how the SDK might one day *ask* for samples in protobuf."""
    missing = set(sdk.DESCRIPTOR.message_types_by_name) - set(MESSAGES)
    assert missing == {"SamplingParams", "StopStrings", "StopTokens"}


def test_the_generated_module_is_of_the_schema_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "set"
    root = PROTO.parents[2]
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{root}",
        f"--descriptor_set_out={out}",
    ]
    subprocess.run([*command, str(PROTO)], check=True)
    (compiled,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto.FromString(ours.DESCRIPTOR.serialized_pb)
    assert without_json_names(compiled) == without_json_names(generated)


def without_json_names(proto: object) -> list[str]:
    """protoc adds them to the one and not to the other."""
    return [line for line in str(proto).splitlines() if "json_name:" not in line]
