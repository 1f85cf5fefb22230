"""The bodies of the plain calls (`/v1`), decoded and checked.

Each `decode_` function takes a body's bytes and gives a frozen struct that needs no further check,
or raises the error that its sender will read. In a batch, one item's error is that item's alone.
"""

from collections.abc import Sequence
from functools import partial
from operator import attrgetter
from typing import Final

import msgspec

from tinkex_proxy.errors import InvalidJson, InvalidRequest
from tinkex_proxy.wire.answers import BatchInfo, TrainingAnswer
from tinkex_proxy.wire.bodies import (
    AdamParams,
    CreateModel,
    LoadWeights,
    OptimStep,
    OptimStepBatch,
    Sample,
    SamplingParams,
    SaveWeights,
    Training,
    TrainingBatch,
)
from tinkex_proxy.wire.cut import read_cut
from tinkex_proxy.wire.datum import Datum, parse_datums, parse_prompt
from tinkex_proxy.wire.faults import Steps, check_utf8, nearest, read, read_body, refuse
from tinkex_proxy.wire.openapi import openapi_schemas

__all__ = [
    "LOSS_FNS",
    "AdamParams",
    "BatchInfo",
    "CreateModel",
    "LoadWeights",
    "OptimStep",
    "Sample",
    "SamplingParams",
    "SaveWeights",
    "TrainingAnswer",
    "TrainingCall",
    "decode_create_model",
    "decode_load_weights",
    "decode_optim_step",
    "decode_optim_step_batch",
    "decode_sample",
    "decode_save_weights",
    "decode_training",
    "decode_training_batch",
    "openapi_schemas",
]

# The SDK's own list, and two that SkyRL adds (`dppo`, `ppo_critic`).
LOSS_FNS: Final = (
    "cispo",
    "cross_entropy",
    "custom",
    "dppo",
    "dro",
    "gspo",
    "importance_sampling",
    "ppo",
    "ppo_critic",
    "stable_reinforce",
)


class TrainingCall(msgspec.Struct, frozen=True):
    """A training call, ready to be sent.

    Attributes:
        model_id: the model.
        datums: at least one.
        loss_fn: the loss.
        loss_fn_config: its parameters.
    """

    model_id: str
    datums: tuple[Datum, ...]
    loss_fn: str
    loss_fn_config: dict[str, float | str]


_CREATE_MODEL: Final = msgspec.json.Decoder(CreateModel)
_TRAINING: Final = msgspec.json.Decoder(Training)
_TRAINING_BATCH: Final = msgspec.json.Decoder(TrainingBatch)
_OPTIM_STEP: Final = msgspec.json.Decoder(OptimStep)
_OPTIM_STEP_BATCH: Final = msgspec.json.Decoder(OptimStepBatch)
_SAMPLE: Final = msgspec.json.Decoder(Sample)
_SAVE_WEIGHTS: Final = msgspec.json.Decoder(SaveWeights)
_LOAD_WEIGHTS: Final = msgspec.json.Decoder(LoadWeights)


def decode_create_model(raw: bytes) -> CreateModel:
    """Decode `POST /v1/models`."""
    return read_body(_CREATE_MODEL, raw)


def decode_training(raw: bytes, *, extra_loss_fns: frozenset[str] = frozenset()) -> TrainingCall:
    """Decode `forward_backward` or `forward`.

    Args:
        raw: the body.
        extra_loss_fns: losses that the upstream has beside `LOSS_FNS`.
    """
    check_utf8(raw)
    return _training(raw, extra_loss_fns, ())


def decode_training_batch(
    raw: bytes, *, extra_loss_fns: frozenset[str] = frozenset()
) -> list[TrainingCall | InvalidRequest | InvalidJson]:
    """Decode `forward_backward_batch`: one entry per request, its error if it is not sound."""
    check_utf8(raw)
    every = partial(_trainings, extra_loss_fns=extra_loss_fns)
    return read_cut(_TRAINING_BATCH, raw, b"requests", attrgetter("requests"), every, unread=True)


def decode_optim_step(raw: bytes) -> OptimStep:
    """Decode `optim_step`."""
    return read_body(_OPTIM_STEP, raw)


def decode_optim_step_batch(raw: bytes) -> list[OptimStep | InvalidRequest | InvalidJson]:
    """Decode `optim_step_batch`: one entry per request, its error if it is not sound."""
    steps: list[OptimStep | InvalidRequest | InvalidJson] = []
    for index, item in enumerate(read_body(_OPTIM_STEP_BATCH, raw).requests):
        try:
            steps.append(read(_OPTIM_STEP, item, ("requests", index)))
        except (InvalidRequest, InvalidJson) as error:
            steps.append(error)
    return steps


def decode_sample(raw: bytes) -> Sample:
    """Decode `sample`; the prompt comes back as a `ModelInput`, `stop` as a list."""
    form = read_body(_SAMPLE, raw)
    named = [form.base_model, form.model_path, form.model_id]
    if named.count(None) != len(named) - 1:
        raise InvalidRequest("Name exactly one of `base_model`, `model_path` and `model_id`.")
    params = form.sampling_params
    if isinstance(params.stop, str):
        params = msgspec.structs.replace(params, stop=[params.stop])
    if params.stop and len({type(stop) for stop in params.stop}) > 1:
        raise refuse(("sampling_params", "stop"), "mixes strings and token ids; send one kind.")
    return msgspec.structs.replace(
        form, prompt=parse_prompt(form.prompt).json, sampling_params=params
    )


def decode_save_weights(raw: bytes) -> SaveWeights:
    """Decode `save_weights` or `save_weights_for_sampler`; what it is called is in `path`."""
    form = read_body(_SAVE_WEIGHTS, raw)
    if form.name is None:
        return form
    if form.path not in {None, form.name}:
        raise refuse(("name",), "and `/path` differ; they mean the same, so send one.")
    return msgspec.structs.replace(form, path=form.name)


def decode_load_weights(raw: bytes) -> LoadWeights:
    """Decode `load_weights`."""
    return read_body(_LOAD_WEIGHTS, raw)


def _trainings(
    _: TrainingBatch, items: Sequence[msgspec.Raw], *, extra_loss_fns: frozenset[str]
) -> list[TrainingCall | InvalidRequest | InvalidJson]:
    calls: list[TrainingCall | InvalidRequest | InvalidJson] = []
    for index, item in enumerate(items):
        try:
            calls.append(_training(bytes(item), extra_loss_fns, ("requests", index)))
        except (InvalidRequest, InvalidJson) as error:
            calls.append(error)
    return calls


def _training(raw: bytes, extra_loss_fns: frozenset[str], at: Steps) -> TrainingCall:
    checked = partial(_checked, extra_loss_fns=extra_loss_fns, at=at)
    return read_cut(_TRAINING, raw, b"data", attrgetter("data"), checked, at)


def _checked(
    form: Training, data: Sequence[msgspec.Raw], *, extra_loss_fns: frozenset[str], at: Steps
) -> TrainingCall:
    known = extra_loss_fns.union(LOSS_FNS)
    if form.loss_fn not in known:
        raise refuse(
            (*at, "loss_fn"),
            f"is {form.loss_fn!r}, which is no known loss{nearest(form.loss_fn, known)}",
        )
    datums = parse_datums(data, loss_fn=form.loss_fn, at=(*at, "data"))
    return TrainingCall(form.model_id, datums, form.loss_fn, form.loss_fn_config or {})
