"""What an upstream speaks and how much it takes in one request.

SkyRL 0.4.0 takes protobuf only (415 for JSON); SkyRL 0.3.0 takes JSON only (500 for protobuf, whose
bytes it cannot quote in its error); the hosted service is sent protobuf by its own SDK. The
question is put with requests that no upstream can run: one that is empty, and one for a model that
does not exist. So finding out never costs a gradient.

A 500 can also be a bad day, and an upstream taken for SkyRL 0.3.0 has its lost answers no longer
asked for. So it has to say 500 every time, and a gateway's 502 to 504 say nothing.
"""

import msgspec

from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.errors import ProxyError
from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.query import query
from tinkex_proxy.runtime.sessions import SDK_VERSION
from tinkex_proxy.runtime.upstream import JSON, PROTOBUF, Ask, Unanswered, Upstream
from tinkex_proxy.wire.datum import Flavour, parse_datums
from tinkex_proxy.wire.merge import encode_fragment, merge

__all__ = ["UpstreamLimits", "ask_flavour", "ask_limits", "tighten"]

_PATH = "/api/v1/forward_backward"
# How often it says so before it is believed: of an upstream that fails every fourth request, one
# in a thousand is taken for what it is not.
_BELIEVED = 5
_GATEWAY = frozenset({502, 503, 504})
# How an upstream says that it has no such call.
_WITHOUT = frozenset({404, 405, 501})


class UpstreamLimits(msgspec.Struct, frozen=True):
    """The part of `client/config` that concerns us; the SDK's defaults where it is silent."""

    fwdbwd_max_chunk_len: int = 1024
    fwdbwd_max_chunk_bytes_count: int = 5_000_000


async def ask_limits(upstream: Upstream, clock: Clock) -> UpstreamLimits | None:
    """Read `client/config`; None when it cannot be read now.

    An upstream without one, or whose words make no sense, has the SDK's defaults.
    """
    path = "/api/v1/client/config"
    try:
        response = await query(upstream, clock, path, {"sdk_version": SDK_VERSION})
        if response.status in _WITHOUT:
            return UpstreamLimits()
        if response.status != 200:
            return None
        return msgspec.json.decode(response.body, type=UpstreamLimits)
    except ProxyError:
        return None
    except msgspec.DecodeError:
        return UpstreamLimits()


def tighten(limits: Limits, theirs: UpstreamLimits) -> Limits:
    """Our limits, lowered to the upstream's where those are smaller."""
    return Limits(
        linger_s=limits.linger_s,
        idle_s=limits.idle_s,
        max_requests=limits.max_requests,
        max_datums=max(1, min(limits.max_datums, theirs.fwdbwd_max_chunk_len)),
        max_bytes=max(1, min(limits.max_bytes, theirs.fwdbwd_max_chunk_bytes_count)),
        preferred_datums=limits.preferred_datums,
    )


async def ask_flavour(upstream: Upstream) -> Flavour | None:
    """Find out which bodies the upstream takes; None when it cannot be told now."""
    json = await _status_of(upstream, JSON, b"{}")
    if json is None or json >= 500:
        return None
    if json == 415:
        return Flavour.PROTOBUF
    for _ in range(_BELIEVED):
        protobuf = await _status_of(upstream, PROTOBUF, _for_no_model())
        if protobuf is None or protobuf in _GATEWAY:
            return None
        if protobuf < 500:
            return Flavour.JSON if protobuf == 415 else Flavour.PROTOBUF
    return Flavour.JSON


def _for_no_model() -> bytes:
    """A sound protobuf request for a model that does not exist; its bytes are not UTF-8."""
    tokens = {"data": [255], "dtype": "int64", "shape": [1]}
    datum = {
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": [255]}]},
        "loss_fn_inputs": {
            "target_tokens": tokens,
            "weights": {"data": [1.0], "dtype": "float32", "shape": [1]},
        },
    }
    fragment = encode_fragment(
        parse_datums([msgspec.Raw(msgspec.json.encode(datum))]), Flavour.PROTOBUF
    )
    return merge(
        [fragment],
        model_id="tinkex-proxy-asks-which-bodies-you-take",
        seq_id=1,
        loss_fn="cross_entropy",
        loss_fn_config={},
        forward_only=True,
        flavour=Flavour.PROTOBUF,
    ).body


async def _status_of(upstream: Upstream, content_type: str, body: bytes) -> int | None:
    ask = Ask(operation=Operation.PROBE, path=_PATH, body=body, content_type=content_type)
    try:
        return (await upstream.ask(ask)).status
    except Unanswered:
        return None
