"""Trace Context as the W3C recommendation has it; its own examples among the cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.runtime.trace_context import (
    MAX_STATE_CHARS,
    TraceContext,
    context_of,
    leading,
    parse,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_what_is_read_is_written_again() -> None:
    context = parse(GOOD, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
    assert context == TraceContext(TRACE, SPAN, 1, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
    assert context.sampled
    assert context.headers() == {
        "traceparent": GOOD,
        "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    }
    assert not parse(f"00-{TRACE}-{SPAN}-00").sampled
    assert parse(GOOD).headers() == {"traceparent": GOOD}


def test_a_child_keeps_the_trace_and_knows_its_parent() -> None:
    child = parse(GOOD, "a=b").child("c" * 16)
    assert child == TraceContext(TRACE, "c" * 16, 1, "a=b", SPAN)
    assert child.headers()["traceparent"] == f"00-{TRACE}-{'c' * 16}-01"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"ff-{TRACE}-{SPAN}-01-what-comes-later",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE}-{SPAN}-0G",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01.",
        f"01-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"0-{TRACE}-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"{GOOD}\n",
        f"{GOOD},{GOOD}",
    ],
)
def test_a_malformed_traceparent_is_as_good_as_none(value) -> None:
    assert parse(value, "a=b") is None


@pytest.mark.parametrize("more", ["", "-", "-what-the-future-will-be-like"])
def test_a_later_version_is_read_as_far_as_this_one_goes(more) -> None:
    context = parse(f"cc-{TRACE}-{SPAN}-fd{more}")
    assert context == TraceContext(TRACE, SPAN, 1)
    assert context.headers() == {"traceparent": GOOD}


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("a=1, b=2 ,\tc=3", "a=1,b=2,c=3"),
        (",a=1,,", "a=1"),
        ("tenant@sys=x,0tenant@sys=y", "tenant@sys=x,0tenant@sys=y"),
        ("a=b c", "a=b c"),
        ("a=", ""),
        ("a", ""),
        ("=1", ""),
        ("A=1", ""),
        ("0a=1", ""),
        ("a=1,a=2", ""),
        ("a=1=2", ""),
        ("a=\x7f", ""),
        ("a=1,b@@c=2", ""),
        (",".join(f"k{n}=1" for n in range(32)), ",".join(f"k{n}=1" for n in range(32))),
        (",".join(f"k{n}=1" for n in range(33)), ""),
    ],
)
def test_a_malformed_tracestate_is_dropped_alone(state, kept) -> None:
    assert parse(GOOD, state) == TraceContext(TRACE, SPAN, 1, kept)


def test_of_a_long_tracestate_long_entries_go_first_then_the_last() -> None:
    long = "long=" + "x" * 200
    short = [f"k{n}=" + "y" * 60 for n in range(8)]
    state = parse(GOOD, ",".join([long, *short])).state
    assert "long" not in state
    assert state.split(",") == short[: len(state.split(","))]
    assert len(state) <= MAX_STATE_CHARS


def test_headers_count_once_and_states_add_up() -> None:
    parent, other = (b"traceparent", GOOD.encode()), (b"accept", b"x")
    states = [(b"tracestate", b"a=1"), (b"tracestate", b"b=2")]
    assert context_of([other, parent, *states]) == TraceContext(TRACE, SPAN, 1, "a=1,b=2")
    assert context_of([parent, parent]) is None
    assert context_of(states) is None


def test_a_shared_request_joins_the_first_trace_that_is_recorded() -> None:
    silent, loud = parse(f"00-{TRACE}-{SPAN}-00"), parse(GOOD)
    assert leading([None, silent, loud]) is loud
    assert leading([None, silent]) is silent
    assert leading([None]) is None


@given(st.text(), st.text())
def test_nothing_that_comes_can_break_it(parent, state) -> None:
    assert parse(parent, state) is None
    read = parse(GOOD, state)
    assert read is not None
    assert parse(read.headers()["traceparent"], read.state) == read
