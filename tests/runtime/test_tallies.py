"""Our counters and histograms: what the library's own say, and how they are read."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tinkex_proxy.runtime.series import DURATION_BUCKETS
from tinkex_proxy.runtime.tallies import Ladder, Tally


def samples(registry: CollectorRegistry) -> list[object]:
    (family,) = registry.collect()
    return [s for s in family.samples if not s.name.endswith("_created")]


@given(st.lists(st.one_of(st.sampled_from(DURATION_BUCKETS), st.floats(0, 2000)), max_size=30))
def test_a_ladder_counts_as_the_librarys_own_histogram_does(values: list[float]) -> None:
    """On the bounds too, which belong to the bucket that they end."""
    own, theirs = CollectorRegistry(), CollectorRegistry()
    ladder = Ladder("h", "Help.", buckets=DURATION_BUCKETS, registry=own)
    histogram = Histogram("h", "Help.", buckets=DURATION_BUCKETS, registry=theirs)
    for value in values:
        ladder.observe(value)
        histogram.observe(value)

    assert samples(own) == samples(theirs)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9))))
def test_a_tally_counts_as_the_librarys_own_counter_does(updates: list[tuple[str, int]]) -> None:
    own, theirs = CollectorRegistry(), CollectorRegistry()
    tally = Tally("c", "Help.", ("a",), registry=own)
    counter = Counter("c", "Help.", ("a",), registry=theirs)
    for label, amount in updates:
        tally.labels(label).inc(amount)
        counter.labels(label).inc(amount)
    assert samples(own) == samples(theirs)


def test_they_can_begin_anew() -> None:
    """As the library resets its own."""
    registry = CollectorRegistry()
    tally = Tally("c", "Help.", registry=registry)
    tally.inc()
    tally.reset()
    tally.inc(2)
    assert b"c_total 2.0" in generate_latest(registry)
