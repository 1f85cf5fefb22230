"""The answers of the plain calls (`/v1`), as the OpenAPI page shows them."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tinkex_proxy.wire.output import TensorOut

__all__ = [
    "BatchInfo",
    "Capabilities",
    "Deleted",
    "Failed",
    "Loaded",
    "ModelFacts",
    "Models",
    "OptimStepAnswer",
    "Pending",
    "Results",
    "Saved",
    "Succeeded",
    "TrainingAnswer",
]


class BatchInfo(msgspec.Struct, frozen=True):
    """The upstream request that carried a call."""

    id: Annotated[str, Meta(description="Names the request", examples=["b-17"])]
    requests: Annotated[int, Meta(description="Calls that shared it", examples=[3])]
    datums: Annotated[int, Meta(description="Datums in it", examples=[12])]
    index: Annotated[int, Meta(description="This call's place, from 0", examples=[1])]
    metrics: Annotated[dict[str, float], Meta(description="The upstream's, over all of it")]


class TrainingAnswer(msgspec.Struct, frozen=True):
    """The answer to `forward_backward` or `forward`."""

    loss: Annotated[
        float | None, Meta(description="Of your datums, summed over tokens", examples=[6.268])
    ]
    loss_fn_outputs: Annotated[
        tuple[dict[str, TensorOut], ...], Meta(description="One for each datum, in order")
    ]
    metrics: Annotated[dict[str, float], Meta(description="Of your datums alone")]
    batch: BatchInfo


class OptimStepAnswer(msgspec.Struct, frozen=True):
    """The answer to `optim_step`."""

    metrics: Annotated[dict[str, float] | None, Meta(examples=[{"grad_norm": 1.74}])] = None


class ModelFacts(msgspec.Struct, frozen=True):
    """A model made under your key, by a plain call or an SDK."""

    model_id: Annotated[str, Meta(examples=["model-1"])]
    base_model: Annotated[
        str | None, Meta(description="null: an SDK did not say", examples=["Qwen/Qwen3-8B"])
    ]
    rank: Annotated[int | None, Meta(examples=[32])]
    seed: int | None = None
    metadata: dict[str, object] = {}
    lane: Annotated[
        dict[str, object] | None, Meta(description="What waits and runs (one model only)")
    ] = None


class Models(msgspec.Struct, frozen=True):
    """The models created under your key."""

    models: list[ModelFacts]


class Capabilities(msgspec.Struct, frozen=True):
    """What the upstream offers, in its own words."""

    models: Annotated[list[dict[str, object]], Meta(examples=[[{"model_name": "Qwen/Qwen3-8B"}]])]


class Deleted(msgspec.Struct, frozen=True):
    """The answer to deleting a model."""

    model_id: Annotated[str, Meta(examples=["model-1"])]
    deleted: bool
    unloaded_upstream: Annotated[bool, Meta(description="false: it ends with its upstream session")]


class Saved(msgspec.Struct, frozen=True):
    """The answer to saving weights."""

    path: Annotated[str, Meta(examples=["tinker://model-1/weights/checkpoint-1"])]


class Loaded(msgspec.Struct, frozen=True):
    """The answer to loading weights."""

    path: Annotated[str | None, Meta(examples=["tinker://model-1/weights/checkpoint-1"])] = None


class Pending(msgspec.Struct, frozen=True):
    """A call that is not done; ask `GET /v1/futures/{id}` again."""

    future_id: Annotated[str, Meta(examples=["f-17"])]
    status: Annotated[Literal["pending"], Meta(examples=["pending"])]


class Succeeded(msgspec.Struct, frozen=True, tag="ok", tag_field="status"):
    """An item of a batch that worked; it has the fields of the single call's answer too."""


class Failed(msgspec.Struct, frozen=True, tag="error", tag_field="status"):
    """An item of a batch that did not work."""

    error: Annotated[dict[str, object], Meta(description="The problem, as of the single call")]


class Results(msgspec.Struct, frozen=True):
    """One result for each item, in order."""

    results: list[Succeeded | Failed]
