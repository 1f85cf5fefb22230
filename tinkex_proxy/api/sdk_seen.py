"""The relayed calls that the proxy has to look at in lane mode: who makes models, who is alive.

An SDK makes its models itself, in a session of its own. Its answers pass as they are; the proxy
notes the model's id, so that the model has a lane when the first training call comes. SDK 0.38
makes a model from a checkpoint with one `load_weights` that names no model: both sides derive its
id from the session and the model's number in it.

`client/config` is the one answer that is changed: limits are lowered to ours where the upstream's
are higher, and compressed bodies are not asked for, because a number has to be written into them.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from tinkex_proxy.api.relay import Seen
from tinkex_proxy.runtime.account import Account

__all__ = ["beat_of", "lowered", "seen_of"]

T = TypeVar("T")

# What the SDK takes where the upstream is silent.
_SDK_LIMITS: Final = {
    "fwdbwd_max_chunk_len": 1024,
    "fwdbwd_max_chunk_bytes_count": 5_000_000,
}


def seen_of(name: str, account: Account, body: bytes, *, max_body_bytes: int) -> Seen | None:
    """Who looks at the answer of a relayed call, if anybody has to.

    Args:
        name: the call: its path below `/api/v1/`.
        account: of its caller.
        body: the request.
        max_body_bytes: longest body that the proxy takes.
    """
    if name == "client/config":
        limits = account.limits
        ours = {
            "fwdbwd_max_chunk_len": limits.max_datums,
            # an SDK counts numbers and images; what frames them never doubles that
            "fwdbwd_max_chunk_bytes_count": min(limits.max_bytes, max_body_bytes // 2),
        }
        return lambda answer: lowered(answer, ours)
    if name not in {"create_model", "load_weights"}:
        return None
    asked = _read(_Making, body)
    if asked is None or asked.session_id is None or asked.model_id is not None:
        return None
    making = asked

    def note(answer: bytes) -> bytes:
        made = _read(_Made, answer)
        derived = f"{making.session_id}:train:{making.model_seq_id}"
        model_id = (None if made is None else made.model_id) or derived
        account.expect(_facts(making, model_id), model_id, str(making.session_id))
        return answer

    return note


def beat_of(body: bytes) -> str:
    """Which session is alive by this heartbeat."""
    asked = _read(_Making, body)
    return (asked and asked.session_id) or ""


def lowered(answer: bytes, ours: Mapping[str, int]) -> bytes:
    """A `client/config` with its limits lowered to ours, and all else as it is."""
    config = _read(dict[str, msgspec.Raw], answer)
    if config is None:
        return answer
    changed: dict[str, object] = {}
    for name, limit in ours.items():
        theirs = _read(int, config[name]) if name in config else _SDK_LIMITS[name]
        if theirs is not None and limit < theirs:
            changed[name] = limit
    if config.get("proto_compress_fwdbwd") == msgspec.Raw(b"true"):
        changed["proto_compress_fwdbwd"] = False
    return msgspec.json.encode({**config, **changed}) if changed else answer


class _Lora(msgspec.Struct):
    rank: int | None = None
    seed: int | None = None


class _Making(msgspec.Struct):
    session_id: str | None = None
    model_seq_id: int | None = None
    model_id: str | None = None
    base_model: str | None = None
    lora_config: _Lora = msgspec.field(default_factory=_Lora)
    user_metadata: dict[str, object] | None = None


class _Made(msgspec.Struct):
    model_id: str | None = None


def _facts(asked: _Making, model_id: str) -> dict[str, object]:
    return {
        "model_id": model_id,
        "base_model": asked.base_model,
        "rank": asked.lora_config.rank,
        "seed": asked.lora_config.seed,
        "metadata": asked.user_metadata or {},
    }


def _read(form: type[T], body: bytes | msgspec.Raw) -> T | None:
    """What can be understood of a body that is not ours to refuse."""
    try:
        return msgspec.json.decode(body, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
