import pytest

from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime.dialect import UpstreamLimits, ask_flavour, ask_limits, tighten
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.datum import Flavour


@pytest.mark.parametrize(
    ("json", "protobuf", "flavour"),
    [
        (415, None, Flavour.PROTOBUF),  # SkyRL 0.4.0
        (422, 415, Flavour.JSON),
        (422, 404, Flavour.PROTOBUF),  # takes both: what its own SDK sends
        (500, None, None),
        (422, Fault.RESET, None),
        (422, 502, None),
        (422, 503, None),
        (422, 504, None),
        (Fault.CONNECT, None, None),
    ],
)
async def test_the_flavour_is_found_out_by_requests_nobody_can_run(
    bench, reply, json, protobuf, flavour
) -> None:
    script = [a if isinstance(a, Fault) else reply(a) for a in (json, protobuf) if a is not None]
    upstream, transport = bench.upstream(script, threshold=1)
    assert await ask_flavour(upstream) is flavour
    bodies = [request.body for request in transport.requests]
    assert bodies[0] == b"{}"
    if len(bodies) > 1:
        message = pb.ForwardBackwardRequest.FromString(bodies[1])
        assert message.forward_only
        assert message.model_id.startswith("tinkex-proxy-asks")
        with pytest.raises(UnicodeDecodeError):
            bodies[1].decode()
    assert upstream.breaker.snapshot("u", "k")["state"] == "closed"


async def test_a_500_is_a_flavour_only_if_it_is_always_the_answer(bench, reply) -> None:
    """As SkyRL 0.3.0 gives it. A bad day's 500 must not decide how lost answers are treated."""
    always, transport = bench.upstream([reply(422)] + [reply(500)] * 5)
    assert await ask_flavour(always) is Flavour.JSON
    assert len(transport.requests) == 6
    for last, flavour in [(404, Flavour.PROTOBUF), (415, Flavour.JSON), (502, None)]:
        at_times, _ = bench.upstream([reply(422)] + [reply(500)] * 4 + [reply(last)])
        assert await ask_flavour(at_times) is flavour


async def test_limits_are_the_upstreams_or_the_sdks(bench, reply) -> None:
    told, _ = bench.upstream([reply(200, {"fwdbwd_max_chunk_len": 7, "more": 1})])
    assert await ask_limits(told, bench.clock) == UpstreamLimits(7, 5_000_000)
    for answer in (reply(404, b"Not Found"), reply(200, {"fwdbwd_max_chunk_len": None})):
        silent, _ = bench.upstream([answer])
        assert await ask_limits(silent, bench.clock) == UpstreamLimits(1024, 5_000_000)


async def test_limits_that_cannot_be_read_now_are_not_made_up(bench, reply) -> None:
    """A passing fault must not drop the upstream's limits for as long as we run."""
    for answer in (Fault.RESET, reply(503), reply(429), reply(401)):
        away, _ = bench.upstream(lambda _, answer=answer: answer)
        assert await ask_limits(away, bench.clock) is None


def test_limits_are_lowered_never_raised() -> None:
    ours = Limits(linger_s=3, max_requests=9, max_datums=100, max_bytes=1000)
    lowered = tighten(ours, UpstreamLimits(50, 2000))
    assert (lowered.max_datums, lowered.max_bytes) == (50, 1000)
    assert (lowered.linger_s, lowered.max_requests) == (3, 9)
    assert tighten(ours, UpstreamLimits(0, 0)).max_datums == 1
