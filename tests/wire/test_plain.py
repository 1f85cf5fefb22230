import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.errors import InvalidJson, InvalidRequest
from tinkex_proxy.wire import plain
from tinkex_proxy.wire.bodies import AdamParams, LoadWeights

DATUM = {"tokens": [1, 2], "targets": [2, 3]}
TRAINING = {"model_id": "m", "data": [DATUM]}
DECODERS = [
    plain.decode_create_model,
    plain.decode_training,
    plain.decode_training_batch,
    plain.decode_optim_step,
    plain.decode_optim_step_batch,
    plain.decode_sample,
    plain.decode_save_weights,
    plain.decode_load_weights,
]


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


def refusal(decode: object, body: object, **options: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decode(encoded(body), **options)
    return caught.value


@pytest.mark.parametrize("decode", DECODERS)
def test_broken_json_is_told_with_its_position(decode: object) -> None:
    with pytest.raises(InvalidJson, match=r"at byte 3 \(line 2, column 2\)"):
        decode(b"{\n ]")


def test_a_training_call() -> None:
    """`cross_entropy` without parameters unless the caller says otherwise."""
    call = plain.decode_training(encoded(TRAINING))
    assert (call.model_id, call.loss_fn, call.loss_fn_config) == ("m", "cross_entropy", {})
    assert [datum.tokens for datum in call.datums] == [2]
    config = {"clip": 0.2, "mode": "x"}
    call = plain.decode_training(encoded({**TRAINING, "loss_fn": "ppo", "loss_fn_config": config}))
    assert (call.loss_fn, call.loss_fn_config) == ("ppo", config)
    assert plain.decode_training(encoded({**TRAINING, "loss_fn_config": None})).loss_fn_config == {}


@pytest.mark.parametrize("loss_fn", plain.LOSS_FNS)
def test_known_losses(loss_fn: str) -> None:
    assert plain.decode_training(encoded({**TRAINING, "loss_fn": loss_fn})).loss_fn == loss_fn


def test_an_unknown_loss_is_refused_with_the_list() -> None:
    """Unless the operator says that the upstream has it."""
    body = {**TRAINING, "loss_fn": "cross_entrpy"}
    error = refusal(plain.decode_training, body)
    assert error.pointer == "/loss_fn"
    assert "did you mean `cross_entropy`?" in error.detail
    assert all(name in error.detail for name in plain.LOSS_FNS)
    extra = frozenset({"cross_entrpy"})
    assert plain.decode_training(encoded(body), extra_loss_fns=extra).loss_fn == "cross_entrpy"
    assert plain.decode_training_batch(encoded({"requests": [body]}), extra_loss_fns=extra)[0]


@pytest.mark.parametrize(
    ("body", "pointer", "reason"),
    [
        ({"data": [DATUM]}, "", "lacks the field `model_id`"),
        ({**TRAINING, "model_id": ""}, "/model_id", "not empty"),
        ({**TRAINING, "data": []}, "/data", "is empty"),
        ({**TRAINING, "data": DATUM}, "/data", "is an object; it must be an array"),
        ({**TRAINING, "loss_fn_config": {"a": 1, "b": []}}, "/loss_fn_config/b", "is an array"),
        ({**TRAINING, "data": [DATUM, 3]}, "/data/1", "is an integer"),
        ({**TRAINING, "lossfn": "ppo"}, "", "did you mean `loss_fn`"),
    ],
)
def test_an_unsound_training_call_is_explained(body: object, pointer: str, reason: str) -> None:
    error = refusal(plain.decode_training, body)
    assert error.pointer == pointer
    assert reason in error.detail


def test_a_bad_item_does_not_spoil_a_batch() -> None:
    """Same order, and each error points into the body that was sent."""
    bad = {**TRAINING, "data": [DATUM, {**DATUM, "targets": [1]}]}
    calls = plain.decode_training_batch(encoded({"requests": [TRAINING, bad, 3, TRAINING]}))
    assert [getattr(call, "model_id", None) for call in calls] == ["m", None, None, "m"]
    assert calls[1].pointer == "/requests/1/data/1/targets"
    assert calls[2].pointer == "/requests/2"


def test_an_empty_batch_is_refused() -> None:
    for decode in (plain.decode_training_batch, plain.decode_optim_step_batch):
        assert refusal(decode, {"requests": []}).pointer == "/requests"


def test_an_optimizer_step() -> None:
    step = plain.decode_optim_step(encoded({"model_id": "m", "adam_params": {"learning_rate": 1}}))
    assert step.adam_params == AdamParams(learning_rate=1.0)
    assert plain.decode_optim_step(encoded({"model_id": "m"})).adam_params == AdamParams()
    bad = {"model_id": "m", "adam_params": {"lr": 1}}
    error = refusal(plain.decode_optim_step, bad)
    assert error.pointer == "/adam_params"
    assert "learning_rate" in error.detail


def test_a_bad_step_does_not_spoil_a_batch() -> None:
    steps = plain.decode_optim_step_batch(encoded({"requests": [{"model_id": "m"}, {}]}))
    assert steps[0].model_id == "m"
    assert steps[1].pointer == "/requests/1"


def test_a_model_to_create() -> None:
    model = plain.decode_create_model(
        encoded({"base_model": "b", "seed": 3, "metadata": {"a": [1]}})
    )
    assert (model.rank, model.seed, model.metadata) == (32, 3, {"a": [1]})
    assert refusal(plain.decode_create_model, {"base_model": "b", "rank": 0}).pointer == "/rank"


def test_a_sample() -> None:
    """The prompt is ready for the upstream, and one stop string is a list of one."""
    params = {"stop": "\n", "max_tokens": 3}
    sample = plain.decode_sample(
        encoded({"prompt": [1, 2], "model_id": "m", "sampling_params": params})
    )
    assert msgspec.json.decode(sample.prompt) == {
        "chunks": [{"type": "encoded_text", "tokens": [1, 2]}]
    }
    assert sample.sampling_params.stop == ["\n"]
    assert (sample.num_samples, sample.base_model, sample.model_id) == (1, None, "m")


@pytest.mark.parametrize("stop", [None, [], [1, 2], ["a", "b"]])
def test_stops_of_one_kind_stay(stop: object) -> None:
    """An empty list is not the same as none: it switches the end token off."""
    body = {"prompt": [1], "base_model": "b", "sampling_params": {"stop": stop}}
    assert plain.decode_sample(encoded(body)).sampling_params.stop == stop


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base_model": None}, "exactly one"),
        ({"model_id": "m"}, "exactly one"),
        ({"sampling_params": {"stop": ["a", 1]}}, "mixes strings and token ids"),
        ({"sampling_params": {"max_tokens": 0}}, "must be an integer >= 1"),
        ({"sampling_params": {"temperature": -1}}, "must be a number >= 0"),
        ({"num_samples": 0}, "must be an integer >= 1"),
        ({"prompt": "hello"}, "array of token ids"),
    ],
)
def test_an_unsound_sample_is_explained(changes: dict[str, object], reason: str) -> None:
    assert (
        reason in refusal(plain.decode_sample, {"prompt": [1], "base_model": "b", **changes}).detail
    )


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"path": "a"}, "a"),
        ({"name": "a"}, "a"),
        ({"path": "a", "name": "a"}, "a"),
        ({}, None),
    ],
)
def test_weights_are_saved_under_a_path_or_a_name(fields: dict[str, str], path: str) -> None:
    assert plain.decode_save_weights(encoded({"model_id": "m", **fields})).path == path


def test_two_names_for_one_checkpoint_are_refused() -> None:
    body = {"model_id": "m", "path": "a", "name": "b"}
    assert refusal(plain.decode_save_weights, body).pointer == "/name"


def test_weights_to_load() -> None:
    body = {"model_id": "m", "path": "p"}
    assert plain.decode_load_weights(encoded(body)) == LoadWeights(model_id="m", path="p")
    assert refusal(plain.decode_load_weights, {"model_id": "m"}).pointer == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
LONG = {
    "model_input": {"chunks": [{"tokens": [1, 2]}]},
    "loss_fn_inputs": {"weights": {"data": [1.0, 2.0], "dtype": "float32", "shape": [2]}},
}
WHOLE = {**TRAINING, "data": [DATUM, LONG], "loss_fn": "ppo", "loss_fn_config": {"a": 1.0}}


def changed(draw: st.DataObject, node: object) -> object:
    """The same tree with something else somewhere."""
    if not isinstance(node, dict | list) or not node or draw.draw(st.integers(0, 5)) == 0:
        return draw.draw(JSON)
    if isinstance(node, list):
        index = draw.draw(st.integers(0, len(node) - 1))
        return [*node[:index], changed(draw, node[index]), *node[index + 1 :]]
    key = draw.draw(st.sampled_from(sorted(node)))
    return {**node, key: changed(draw, node[key])}


def test_a_body_that_is_no_json_is_told_so_though_something_in_it_does_not_fit_either() -> None:
    raw = b'{"model_id":"m","data":[],"loss_fn_config":{"a":[Infinity]}}'
    with pytest.raises(InvalidJson, match="no NaN and no Infinity"):
        plain.decode_training(raw)


@given(st.data())
def test_any_body_is_read_or_explained(data: st.DataObject) -> None:
    """One wrong value anywhere: a pointer that leads into the body, and never another exception."""
    body = changed(data, WHOLE)
    try:
        call = plain.decode_training(encoded(body))
    except InvalidJson:
        return
    except InvalidRequest as error:
        follow(body, error.pointer)
        return
    assert call.datums


def follow(node: object, pointer: str) -> None:
    """Go where the pointer leads; every step but the last key must exist."""
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        node = node[int(key)] if isinstance(node, list) else node[key]
