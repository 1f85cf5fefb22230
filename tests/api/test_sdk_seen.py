"""What the proxy notes of relayed calls, and the one answer that it changes."""

import json
from types import SimpleNamespace

import pytest

from tinkex_proxy.api.sdk_seen import beat_of, lowered, seen_of
from tinkex_proxy.core.coalesce import Limits

OURS = {"fwdbwd_max_chunk_len": 1024, "fwdbwd_max_chunk_bytes_count": 5_000_000}


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({}, {}),
        ({"fwdbwd_max_chunk_len": 100}, {"fwdbwd_max_chunk_len": 100}),
        ({"fwdbwd_max_chunk_len": 9000}, {"fwdbwd_max_chunk_len": 1024}),
        (
            {"fwdbwd_max_chunk_bytes_count": 50_000_000, "other": 1.10},
            {"fwdbwd_max_chunk_bytes_count": 5_000_000, "other": 1.10},
        ),
        ({"proto_compress_fwdbwd": True}, {"proto_compress_fwdbwd": False}),
        ({"proto_compress_fwdbwd": False}, {"proto_compress_fwdbwd": False}),
        ({"fwdbwd_max_chunk_len": "many"}, {"fwdbwd_max_chunk_len": "many"}),
    ],
)
def test_limits_are_lowered_to_ours_and_never_raised(theirs, told) -> None:
    assert json.loads(lowered(json.dumps(theirs).encode(), OURS)) == told


def test_a_limit_below_the_sdks_own_is_said_where_the_upstream_is_silent() -> None:
    told = json.loads(lowered(b"{}", {"fwdbwd_max_chunk_len": 64}))
    assert told == {"fwdbwd_max_chunk_len": 64}


def test_an_answer_without_change_or_sense_keeps_its_bytes() -> None:
    for answer in (b'{ "fwdbwd_max_chunk_len" : 7 }', b"[]", b"\xff"):
        assert lowered(answer, OURS) is answer


class Account:
    def __init__(self) -> None:
        self.limits = Limits(max_datums=64, max_bytes=10_000)
        self.expected: list[tuple[object, ...]] = []

    def expect(self, *made: object) -> None:
        self.expected.append(made)


def test_the_config_names_what_one_request_of_ours_may_hold() -> None:
    seen = seen_of("client/config", Account(), b"{}", max_body_bytes=4000)
    assert json.loads(seen(b"{}")) == {
        "fwdbwd_max_chunk_len": 64,
        "fwdbwd_max_chunk_bytes_count": 2000,
    }


@pytest.mark.parametrize(
    ("name", "answer", "model_id"),
    [
        ("create_model", b'{"request_id":"1","model_id":"theirs"}', "theirs"),
        ("create_model", b'{"request_id":"1"}', "s:train:3"),
        ("create_model", b"?", "s:train:3"),
        ("load_weights", b'{"request_id":"1"}', "s:train:3"),
    ],
)
def test_a_model_in_the_making_is_noted(name, answer, model_id) -> None:
    account = Account()
    body = {
        "session_id": "s",
        "model_seq_id": 3,
        "base_model": "b",
        "lora_config": {"rank": 8, "seed": 5},
        "user_metadata": {"run": "a"},
    }
    seen = seen_of(name, account, json.dumps(body).encode(), max_body_bytes=1)
    assert seen(answer) is answer
    ((facts, noted, session_id),) = account.expected
    assert (noted, session_id) == (model_id, "s")
    assert facts == {
        "model_id": model_id,
        "base_model": "b",
        "rank": 8,
        "seed": 5,
        "metadata": {"run": "a"},
    }


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("load_weights", b'{"model_id":"m","seq_id":1}'),
        ("create_model", b"?"),
        ("create_model", b"{}"),
        ("retrieve_future", b'{"session_id":"s"}'),
    ],
)
def test_nobody_looks_at_the_rest(name, body) -> None:
    assert seen_of(name, SimpleNamespace(), body, max_body_bytes=1) is None


def test_a_heartbeat_says_whose_it_is() -> None:
    assert beat_of(b'{"session_id":"s"}') == "s"
    assert beat_of(b"{}") == beat_of(b"?") == ""
