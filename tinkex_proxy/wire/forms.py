"""The JSON of datums and prompts, as callers send it.

One struct holds both forms of a datum, and one every kind of chunk: msgspec's tagged unions want
the tag, and Tinker's `type` may be left out. Which fields belong together is checked in `datum`;
the OpenAPI page shows them apart (`openapi`).
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = [
    "CHUNK_FIELDS",
    "LONG_FORM",
    "SHORT_FORM",
    "ChunkForm",
    "DatumForm",
    "Dtype",
    "ModelInput",
    "TensorData",
    "Tokens",
]

Dtype = Literal["float32", "int64"]

# The fields of each kind of chunk: those it must have, those it may have.
CHUNK_FIELDS: Final[dict[str, tuple[frozenset[str], frozenset[str]]]] = {
    "encoded_text": (frozenset({"tokens"}), frozenset()),
    "image": (frozenset({"data", "format"}), frozenset({"expected_tokens"})),
    "dmel": (frozenset({"dmel"}), frozenset()),
    "image_asset_pointer": (frozenset({"location", "format"}), frozenset({"expected_tokens"})),
}
# The fields of a datum in the short form (`weights` may be left out) and in Tinker's own.
SHORT_FORM: Final = ("tokens", "targets", "weights")
LONG_FORM: Final = ("model_input", "loss_fn_inputs")

Tokens = Annotated[list[int], Meta(description="Token ids (int32)", examples=[[15, 27, 3]])]
_Targets = Annotated[
    list[int], Meta(description="The token to predict at each position", examples=[[27, 3, 9]])
]
_Weights = Annotated[
    list[float],
    Meta(description="The weight of each position in the loss", examples=[[0.0, 1.0, 1.0]]),
]


class TensorData(msgspec.Struct, forbid_unknown_fields=True):
    """Numbers, flattened, with their type and shape."""

    data: Annotated[list[int | float], Meta(description="Row by row", examples=[[27, 3, 9]])]
    dtype: Annotated[Dtype, Meta(examples=["int64"])]
    shape: Annotated[
        list[int] | None, Meta(description="Left out: one dimension", examples=[[3]])
    ] = None
    sparse_crow_indices: Annotated[
        list[int] | None,
        Meta(description="CSR row pointers; data then lists the values", examples=[[0, 1, 2]]),
    ] = None
    sparse_col_indices: Annotated[
        list[int] | None, Meta(description="CSR column of each value", examples=[[0, 1]])
    ] = None


class ChunkForm(msgspec.Struct, forbid_unknown_fields=True):
    """A chunk of any kind."""

    type: Annotated[
        Literal["encoded_text", "image", "dmel", "image_asset_pointer"],
        Meta(examples=["encoded_text"]),
    ] = "encoded_text"
    tokens: Tokens | UnsetType = UNSET
    data: Annotated[bytes, Meta(description="The image file, base64")] | UnsetType = UNSET
    format: Literal["png", "jpeg"] | UnsetType = UNSET
    expected_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1, examples=[256])] | UnsetType | None = (
        UNSET
    )
    dmel: Annotated[bytes, Meta(description="Serialized audio, base64")] | UnsetType = UNSET
    location: Annotated[str, Meta(min_length=1)] | UnsetType = UNSET


class ModelInput(msgspec.Struct, forbid_unknown_fields=True):
    """What the model reads."""

    chunks: Annotated[list[ChunkForm], Meta(examples=[[{"tokens": [15, 27, 3]}]])]


class DatumForm(msgspec.Struct, forbid_unknown_fields=True):
    """A datum in either form."""

    tokens: Tokens | UnsetType = UNSET
    targets: _Targets | UnsetType = UNSET
    weights: _Weights | UnsetType | None = UNSET
    model_input: ModelInput | UnsetType = UNSET
    loss_fn_inputs: (
        Annotated[
            dict[str, TensorData],
            Meta(examples=[{"target_tokens": {"data": [27, 3, 9], "dtype": "int64"}}]),
        ]
        | UnsetType
    ) = UNSET
