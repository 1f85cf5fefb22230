"""What the proxy does for each call beside its bytes: lane, gate, metrics."""

import itertools
import time

from prometheus_client import CollectorRegistry

from tests.bench.breaker import breaker
from tinkex_proxy.core.coalesce import Item, Limits
from tinkex_proxy.core.lane import Lane
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.runtime.events import CallEnded
from tinkex_proxy.runtime.hub import MOST, Hub
from tinkex_proxy.runtime.metrics import Metrics
from tinkex_proxy.runtime.series import Refused

CALLS = 10


def test_gate(measure) -> None:
    """A permit and its outcome, of the whole breaker."""
    usual = breaker()
    measure(
        lambda: usual.settle(usual.acquire(), Outcome.SUCCESS, "answered 200"),
        target=3,
        unit="us",
        units=1,
    )


def test_metric_update(measure) -> None:
    """A call's end is two updates: a counter, and a histogram of 41 buckets."""
    metrics = Metrics(CollectorRegistry(), Refused())
    hub = Hub([metrics], print, lambda *_: None)
    ended = CallEnded("forward_backward", "ok", 18.0)

    def told() -> None:
        """As many as are gathered at most, which is when they are told."""
        for _ in range(MOST):
            hub.tell(ended)

    measure(told, target=1, unit="us", units=2 * MOST)


def test_lane(measure) -> None:
    """Ten calls join, leave as one batch, are admitted and settled: the cost of each call."""
    lane, ids, clock = Lane(Limits(max_requests=CALLS)), itertools.count(), time.monotonic

    def work() -> None:
        for _ in range(CALLS):
            lane.add(Item(id=next(ids), key="k", datums=1, size_bytes=400), clock())
        assert lane.poll(clock()) is not None
        lane.admitted()
        lane.settled()

    measure(work, target=None, unit="us", units=CALLS)
