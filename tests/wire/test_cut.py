"""What is read piece by piece is what is read as a whole, faults and all."""

import json
from collections.abc import Callable, Iterator, Sequence

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinkex_proxy.errors import InvalidJson, InvalidRequest
from tinkex_proxy.wire import cut, plain
from tinkex_proxy.wire.cut import read_cut
from tinkex_proxy.wire.datum import Flavour
from tinkex_proxy.wire.faults import read
from tinkex_proxy.wire.sdk import read_training

JSON = "application/json"
NUMBERS = list(range(300))
DATUM = {"tokens": NUMBERS, "targets": NUMBERS}


class Form(msgspec.Struct):
    data: list[msgspec.Raw]
    name: str = ""


class Recording:
    """A decoder that notes what it is given."""

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(Form)
        self.type = Form
        self.given: list[bytes] = []

    def decode(self, raw: bytes) -> Form:
        self.given.append(bytes(raw))
        return self._decoder.decode(raw)


def read_items(raw: bytes, *, unread: bool = False) -> tuple[list[object], list[bytes]]:
    """The items, and what the decoder of the body was given."""
    decoder = Recording()

    def use(_: Form, items: Sequence[msgspec.Raw]) -> list[object]:
        return [bytes(item) if unread else msgspec.json.decode(item) for item in items]

    items = read_cut(decoder, raw, b"data", lambda form: form.data, use, unread=unread)
    return items, decoder.given


def encoded(body: object) -> bytes:
    return json.dumps(body).encode()


@pytest.mark.parametrize("unread", [False, True])
def test_items_that_are_worth_it_are_not_read_with_the_body(unread: bool) -> None:
    raw = json.dumps({"name": "a", "data": [DATUM] * 3}, indent=1).encode()
    items, (around,) = read_items(raw, unread=unread)
    assert [json.loads(one) if unread else one for one in items] == [DATUM] * 3
    assert b"299" not in around


def test_what_is_small_is_read_as_a_whole_unless_all_of_it_is_large() -> None:
    small = {"tokens": [1], "targets": [2]}
    few, many = encoded({"data": [small]}), encoded({"data": [small] * 10_000})
    assert read_items(few) == ([small], [few])
    items, (around,) = read_items(many)
    assert items == [small] * 10_000
    assert len(around) < 100


UNPROVED = {
    "a closing brace in a text": encoded({"data": [{**DATUM, "}": 1}]}),
    "an opening brace in a text": encoded({"data": [{**DATUM, "{": 1}]}),
    "what looks like two items": encoded({"data": [{**DATUM, '}, {"': 1}]}),
    "an item that is no object": encoded({"data": [DATUM, 3]}),
    "a first item that is no object": encoded({"data": [3, DATUM]}),
    "no item": encoded({"data": []}),
    "the name as a text": encoded({"name": "data", "data": [DATUM]}),
    "the name further down": encoded({"more": {"data": [DATUM]}, "data": [DATUM]}),
    "the mark elsewhere": encoded({"data": [DATUM], "name": "\0items\0"}),
    "the array twice": encoded({"data": [DATUM], "more": 1}).replace(b'"more": 1', b'"data": [3]'),
    "the array twice, once with the mark": b'{"data":[%b],"data":["\\u0000items\\u0000"]}'
    % encoded(DATUM),
    "its name written another way": b'{"data":[%b],"d\\u0061ta":[3]}' % encoded(DATUM),
}


@pytest.mark.parametrize("raw", UNPROVED.values(), ids=UNPROVED)
def test_what_was_guessed_wrong_or_cannot_be_proved_is_read_as_a_whole(raw: bytes) -> None:
    items, given_ = read_items(raw)
    assert items == json.loads(raw)["data"]
    assert given_[-1] == raw


ONE, TWO = encoded({"data": [DATUM]}), encoded({"data": [DATUM, DATUM]})
NO_JSON = {
    "cut off": ONE[:-1],
    "cut off in the array": ONE[:-2],
    "cut off in an item": ONE[:-3],
    "more at the end": ONE + b"}",
    "no comma": TWO.replace(b"}, {", b"} {"),
    "two commas": TWO.replace(b"}, {", b"}, , {"),
    "an item that is none": ONE.replace(b"299]", b"299 1]"),
    "an item that ends early": ONE.replace(b"299]", b"299}]"),
    "no colon": ONE.replace(b": [{", b"; [{"),
}


@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("raw", NO_JSON.values(), ids=NO_JSON)
def test_a_body_that_is_no_json_is_told_of_as_a_whole(raw: bytes, unread: bool) -> None:
    with pytest.raises(InvalidJson) as here:
        read_items(raw, unread=unread)
    with pytest.raises(InvalidJson) as whole:
        read(msgspec.json.Decoder(Form), raw)
    assert here.value.detail == whole.value.detail


# ---- the decoders of bodies: with every item worth a cut, against none cut ----------------------


@pytest.fixture(scope="module")
def _all_is_worth_it() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "_WORTH_BYTES", 0)
        yield


Decode = Callable[[bytes], object]
DECODERS: dict[str, Decode] = {
    "plain": plain.decode_training,
    "batch": plain.decode_training_batch,
    "SDK to JSON": lambda raw: read_training(raw, JSON, Flavour.JSON),
    "SDK to protobuf": lambda raw: read_training(raw, JSON, Flavour.PROTOBUF),
}


def outcome(decode: Decode, raw: bytes) -> object:
    """What comes of a body; an error as all that its sender reads."""
    try:
        found = decode(raw)
    except (InvalidJson, InvalidRequest) as error:
        return _told(error)
    return [_told(one) for one in found] if isinstance(found, list) else found


def _told(one: object) -> object:
    if isinstance(one, InvalidJson | InvalidRequest):
        return (type(one), one.detail, getattr(one, "pointer", None))
    return one


def as_a_whole(decode: Decode, raw: bytes) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut, "_cut", lambda *_: None)
        return outcome(decode, raw)


TOKENS = st.lists(st.sampled_from([0, 1, 70_000, 2**31, 2**63, 1.5, "}", None]), max_size=3)
NAMES = st.sampled_from(["a", "ü", "{", "}", '"', "\\", "},{", "data", "\0items\0"])


@st.composite
def datums(draw: st.DrawFn) -> object:
    good = {"tokens": [1, 2], "targets": [2, 3]}
    if draw(st.booleans()):
        return good
    long = {
        "model_input": {"chunks": [{"tokens": draw(TOKENS)}, {"tokens": [1]}]},
        "loss_fn_inputs": {draw(NAMES): {"data": draw(TOKENS), "dtype": "int64"}},
    }
    other = st.sampled_from([{**good, "weights": [1, 0.5]}, {**good, "}": 1}, {}, 3, [good], "{"])
    return draw(st.one_of(st.just(long), other))


@st.composite
def trainings(draw: st.DrawFn, key: str = "") -> object:
    data = draw(st.lists(datums(), max_size=3))
    config = draw(st.sampled_from([None, {"data": 1.0}, {"}": "{"}, {"a": []}]))
    inner = {"data": data, "loss_fn": "ppo", "loss_fn_config": config}
    inner = {name: inner[name] for name in draw(st.permutations(sorted(inner)))}
    return {"model_id": draw(NAMES), **({key: inner} if key else inner)}


@st.composite
def texts(draw: st.DrawFn, body: object) -> bytes:
    """A body, written this way or that, perhaps with some byte changed."""
    ascii_, indent = draw(st.booleans()), draw(st.sampled_from([None, 1]))
    raw = json.dumps(body, ensure_ascii=ascii_, indent=indent).encode()
    if draw(st.booleans()):
        at = draw(st.integers(0, len(raw) - 1))
        new = draw(st.sampled_from([b"", *(bytes([byte]) for byte in b'{}[]",:\\ 0x\xff\0')]))
        raw = raw[:at] + new + raw[at + draw(st.integers(0, 1)) :]
    return raw


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    which = draw(st.sampled_from(sorted(DECODERS)))
    if which == "batch":
        body: object = {"requests": draw(st.lists(st.one_of(trainings(), st.just(3)), max_size=3))}
    else:
        key = draw(st.sampled_from(["forward_backward_input", "forward_input"]))
        body = draw(trainings("" if which == "plain" else key))
    return which, draw(texts(body))


@pytest.mark.usefixtures("_all_is_worth_it")
@given(bodies())
@example(("plain", encoded({"model_id": "m", "data": [DATUM, {**DATUM, "targets": [1]}]})))
@example(("batch", encoded({"requests": [{"model_id": "m", "data": [DATUM]}, {}]})))
def test_every_body_comes_to_the_same_as_read_whole(which_and_raw: tuple[str, bytes]) -> None:
    which, raw = which_and_raw
    decode = DECODERS[which]
    assert outcome(decode, raw) == as_a_whole(decode, raw)
