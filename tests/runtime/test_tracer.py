"""Who begins a trace, whose choice counts, and what an upstream is told."""

from tinkex_proxy.runtime.trace_context import TraceContext
from tinkex_proxy.runtime.tracer import OFF, Tracer

THEIRS = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-%s")]


def with_flags(flags: bytes):
    return [(THEIRS[0][0], THEIRS[0][1] % flags)]


def test_without_tracing_a_context_is_passed_on_as_it_came_and_none_is_begun() -> None:
    """A span that nobody sends would be a parent that is missing."""
    assert OFF.arrived([]) is None
    context = OFF.arrived(with_flags(b"01"))
    assert context.span_id == "b7ad6b7169203331"
    assert OFF.below(context) is context
    assert context.headers() == {"traceparent": dict(with_flags(b"01"))[b"traceparent"].decode()}


def test_with_tracing_a_request_has_its_place_below_its_callers() -> None:
    tracer = Tracer(on=True, ratio=0.0)
    context = tracer.arrived(with_flags(b"01"))
    assert context.parent_id == "b7ad6b7169203331"
    assert context.sampled
    below = tracer.below(context)
    assert (below.parent_id, below.trace_id) == (context.span_id, context.trace_id)
    assert tracer.below(None) is None


def test_a_callers_choice_is_kept_whatever_the_ratio() -> None:
    assert not Tracer(on=True, ratio=1.0).arrived(with_flags(b"00")).sampled


def test_of_the_traces_begun_here_the_ratio_is_recorded() -> None:
    draws = iter([0.0, 0.24, 0.25, 0.99])
    tracer = Tracer(on=True, ratio=0.25, draw=lambda: next(draws))
    begun = [tracer.arrived([]) for _ in range(4)]
    assert [context.sampled for context in begun] == [True, True, False, False]
    assert len({context.trace_id for context in begun}) == 4
    assert all(context.parent_id is None and context.flags & 2 for context in begun)
    assert all(isinstance(context, TraceContext) and context.headers() for context in begun)


def test_another_share_counts_for_the_traces_that_begin_from_then_on() -> None:
    tracer = Tracer(on=True, ratio=0.0)
    assert not tracer.arrived([]).sampled
    tracer.reconfigure(ratio=1.0)
    assert tracer.arrived([]).sampled


def test_what_only_waits_begins_no_trace_and_keeps_its_callers() -> None:
    tracer = Tracer(on=True, ratio=1.0)
    assert tracer.arrived([], begins=False) is None
    assert tracer.arrived(with_flags(b"01"), begins=False).parent_id == "b7ad6b7169203331"
