"""The JSON bodies the sandbox reads; fields it does not know it passes over, as a server does."""

import msgspec

from tinkex_proxy.sandbox.adam import AdamParams

__all__ = [
    "Asample",
    "CreateModel",
    "CreateSampler",
    "JoinSampler",
    "LoadWeights",
    "OptimStep",
    "Retrieve",
    "SaveForSampler",
    "SaveWeights",
]


class LoraConfig(msgspec.Struct):
    """What of a model is trained."""

    rank: int
    seed: int | None = None


class CreateModel(msgspec.Struct):
    """`create_model`."""

    session_id: str
    base_model: str
    model_seq_id: int = 0
    lora_config: LoraConfig | None = None
    user_metadata: dict[str, object] | None = None


class OptimStep(msgspec.Struct):
    """`optim_step`."""

    model_id: str
    seq_id: int | None = None
    adam_params: AdamParams | None = None


class SaveWeights(msgspec.Struct):
    """`save_weights`."""

    model_id: str
    seq_id: int | None = None
    path: str | None = None
    overwrite: bool = False


class SaveForSampler(msgspec.Struct):
    """`save_weights_for_sampler`."""

    model_id: str
    seq_id: int | None = None
    path: str | None = None
    sampling_session_seq_id: int | None = None


class LoadWeights(msgspec.Struct):
    """`load_weights`, into a model or as its first request."""

    path: str
    model_id: str | None = None
    seq_id: int | None = None
    session_id: str | None = None
    model_seq_id: int | None = None
    optimizer: bool = False
    user_metadata: dict[str, object] | None = None


class CreateSampler(msgspec.Struct):
    """`create_sampling_session`."""

    session_id: str
    base_model: str | None = None
    model_path: str | None = None


class JoinSampler(msgspec.Struct):
    """`join_sampling_session`."""

    sampling_session_id: str


class Chunk(msgspec.Struct):
    """A piece of a prompt."""

    tokens: list[int]


class Prompt(msgspec.Struct):
    """A prompt."""

    chunks: list[Chunk]


class Params(msgspec.Struct):
    """How to draw."""

    max_tokens: int | None = None
    seed: int | None = None
    stop: list[int | str] | str | None = None
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0


class Asample(msgspec.Struct):
    """`asample`."""

    prompt: Prompt
    sampling_params: Params
    num_samples: int = 1
    sampling_session_id: str | None = None
    seq_id: int | None = None
    base_model: str | None = None
    model_path: str | None = None
    prompt_logprobs: bool | None = None
    topk_prompt_logprobs: int = 0


class Retrieve(msgspec.Struct):
    """`retrieve_future`."""

    request_id: str
    allow_metadata_only: bool = False
