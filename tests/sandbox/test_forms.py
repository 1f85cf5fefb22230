"""The JSON bodies, against what the official SDK sends."""

import msgspec
import pytest
from tinker import types

from tinkex_proxy.sandbox import forms

PROMPT = types.ModelInput.from_ints([1, 2])
SENT = [
    (
        forms.CreateModel,
        types.CreateModelRequest(
            session_id="s",
            model_seq_id=1,
            base_model="b",
            lora_config=types.LoraConfig(rank=3, seed=4),
        ),
    ),
    (
        forms.OptimStep,
        types.OptimStepRequest(model_id="m", seq_id=2, optim_params=types.AdamParams()),
    ),
    (forms.SaveWeights, types.SaveWeightsRequest(model_id="m", seq_id=2, path="p", overwrite=True)),
    (
        forms.SaveForSampler,
        types.SaveWeightsForSamplerRequest(model_id="m", seq_id=2, sampling_session_seq_id=1),
    ),
    (forms.LoadWeights, types.LoadWeightsRequest(model_id="m", seq_id=2, path="p", optimizer=True)),
    (
        forms.LoadWeights,
        types.LoadWeightsRequest(session_id="s", model_seq_id=2, path="p", optimizer=False),
    ),
    (
        forms.CreateSampler,
        types.CreateSamplingSessionRequest(
            session_id="s", sampling_session_seq_id=0, base_model="b"
        ),
    ),
]


@pytest.mark.parametrize(("form", "sent"), SENT, ids=range(len(SENT)))
def test_what_the_sdk_sends_is_read_whole(form, sent) -> None:
    """Every field of the form that the SDK sends has the value that was sent."""
    body = sent.model_dump(mode="json", exclude_none=True)
    read = msgspec.to_builtins(msgspec.json.decode(msgspec.json.encode(body), type=form))
    known = {name: read[name] for name in body if name in read}
    assert {"path", "session_id", "model_id"} & known.keys()
    for name, value in known.items():
        if isinstance(value, dict):
            assert value.items() <= body[name].items()
        else:
            assert value == body[name]


def test_the_defaults_of_an_optimizer_step_are_the_sdks() -> None:
    body = {"model_id": "m", "adam_params": {}}
    read = msgspec.convert(body, forms.OptimStep).adam_params
    assert msgspec.to_builtins(read) == types.AdamParams().model_dump()


@pytest.mark.parametrize("stop", [None, "a", ["a", "b"], [1, 2]])
def test_a_stop_is_a_text_texts_or_tokens(stop) -> None:
    body = {"prompt": {"chunks": [{"tokens": [1]}]}, "sampling_params": {"stop": stop}}
    assert msgspec.convert(body, forms.Asample).sampling_params.stop == stop
