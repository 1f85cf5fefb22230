"""The bodies of the plain calls (`/v1`): their fields, defaults and bounds.

These structs decode the bodies and make the OpenAPI page, so the page cannot drift from what is
accepted. Unknown fields are refused: a misspelt `weigths` that is silently ignored costs somebody a
training run.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = [
    "AdamParams",
    "CreateModel",
    "LoadWeights",
    "OptimStep",
    "OptimStepBatch",
    "Sample",
    "SamplingParams",
    "SaveWeights",
    "Training",
    "TrainingBatch",
]

_ModelId = Annotated[
    str, Meta(min_length=1, description="As POST /v1/models answered", examples=["model-1"])
]
_Path = Annotated[str, Meta(min_length=1, examples=["checkpoint-1"])]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all bodies share."""


class CreateModel(_Body, frozen=True):
    """A model to train: a base model and fresh low-rank weights."""

    base_model: Annotated[str, Meta(min_length=1, examples=["Qwen/Qwen3-8B"])]
    rank: Annotated[int, Meta(ge=1, description="Of the low-rank weights", examples=[32])] = 32
    seed: Annotated[int | None, Meta(description="Of the initial weights", examples=[7])] = None
    metadata: Annotated[
        dict[str, object], Meta(description="Yours, kept with the model", examples=[{"run": "a"}])
    ] = {}
    train_unembed: bool = True
    train_mlp: bool = True
    train_attn: bool = True


class Training(_Body, frozen=True):
    """Datums to run through a model, and the loss to take."""

    model_id: _ModelId
    data: Annotated[
        list[msgspec.Raw],
        Meta(
            description="One datum or more",
            examples=[[{"tokens": [15, 27, 3], "targets": [27, 3, 9]}]],
        ),
    ]
    loss_fn: Annotated[str, Meta(examples=["cross_entropy"])] = "cross_entropy"
    loss_fn_config: Annotated[
        dict[str, float | str] | None, Meta(examples=[{"clip_low_threshold": 0.8}])
    ] = None


class TrainingBatch(_Body, frozen=True):
    """Several training calls in one body."""

    requests: Annotated[
        list[msgspec.Raw],
        Meta(
            min_length=1,
            examples=[
                [{"model_id": "model-1", "data": [{"tokens": [15, 27, 3], "targets": [27, 3, 9]}]}]
            ],
        ),
    ]


class AdamParams(_Body, frozen=True):
    """How the optimizer steps."""

    learning_rate: Annotated[float, Meta(ge=0, examples=[1e-4])] = 1e-4
    beta1: Annotated[float, Meta(ge=0, lt=1, examples=[0.9])] = 0.9
    beta2: Annotated[float, Meta(ge=0, lt=1, examples=[0.95])] = 0.95
    eps: Annotated[float, Meta(ge=0, examples=[1e-12])] = 1e-12
    weight_decay: Annotated[float, Meta(ge=0, examples=[0.0])] = 0.0
    grad_clip_norm: Annotated[
        float, Meta(description="0 or less: gradients are not clipped", examples=[1.0])
    ] = 0.0


class OptimStep(_Body, frozen=True):
    """A step along the gradients gathered so far."""

    model_id: _ModelId
    adam_params: Annotated[AdamParams, Meta(examples=[{"learning_rate": 1e-4}])] = AdamParams()


class OptimStepBatch(_Body, frozen=True):
    """Several optimizer steps in one body."""

    requests: Annotated[list[msgspec.Raw], Meta(min_length=1, examples=[[{"model_id": "model-1"}]])]


class SamplingParams(_Body, frozen=True):
    """How to sample."""

    max_tokens: Annotated[int, Meta(ge=1, examples=[64])] | None = None
    seed: Annotated[int | None, Meta(examples=[7])] = None
    stop: Annotated[
        str | list[int | str] | None,
        Meta(description="Strings, or token ids, that end it", examples=[["\n"]]),
    ] = None
    temperature: Annotated[float, Meta(ge=0, examples=[1.0])] = 1.0
    top_k: Annotated[int, Meta(ge=-1, description="-1: no limit", examples=[-1])] = -1
    top_p: Annotated[float, Meta(gt=0, le=1, examples=[1.0])] = 1.0


class Sample(_Body, frozen=True):
    """A prompt to continue, by exactly one of `base_model`, `model_path` and `model_id`."""

    prompt: Annotated[
        msgspec.Raw, Meta(description="Token ids, or a ModelInput", examples=[[15, 27, 3]])
    ]
    base_model: Annotated[str | None, Meta(examples=["Qwen/Qwen3-8B"])] = None
    model_path: Annotated[str | None, Meta(examples=["tinker://model-1/sampler_weights/a"])] = None
    model_id: Annotated[str | None, Meta(examples=["model-1"])] = None
    num_samples: Annotated[int, Meta(ge=1, examples=[1])] = 1
    sampling_params: Annotated[SamplingParams, Meta(examples=[{"max_tokens": 64}])] = (
        SamplingParams()
    )
    prompt_logprobs: bool = False
    topk_prompt_logprobs: Annotated[int, Meta(ge=0, examples=[0])] = 0


class SaveWeights(_Body, frozen=True):
    """A checkpoint to make, named by `path` or `name`."""

    model_id: _ModelId
    path: _Path | None = None
    name: _Path | None = None


class LoadWeights(_Body, frozen=True):
    """A checkpoint to load into a model."""

    model_id: _ModelId
    path: Annotated[str, Meta(min_length=1, examples=["tinker://model-1/weights/checkpoint-1"])]
    optimizer: Annotated[bool, Meta(description="The optimizer's state too")] = False
