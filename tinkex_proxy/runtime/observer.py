"""What the snapshot holds of the proxy itself, and its telling in intervals.

Requests are those of callers, as they see them: an HTTP request and its answer. Only 2xx is a
success; a request whose caller left before there was an answer has no duration, and counts as
neither. With `metrics.enabled = false` nobody tells of HTTP requests; all else still counts.

A snapshot is told at each interval: to those who follow (`GET /metrics/events`), and as a log line,
at level info where there were requests since the last one and at debug where there were none, so
that a proxy at rest is silent.
"""

from collections.abc import Callable, Sequence

from tinkex_proxy.runtime.clock import Clock
from tinkex_proxy.runtime.events import BatchLeft, Relayed, RequestEnded, SnapshotTaken, Trained
from tinkex_proxy.runtime.hub import ByKind, Hub
from tinkex_proxy.runtime.series import SNAPSHOT
from tinkex_proxy.runtime.snapshot import Snapshot

__all__ = ["Intervals", "Observer"]


class Observer(ByKind):
    """Feeds a snapshot.

    Args:
        snapshot: what is fed.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        for row in SNAPSHOT.values():
            snapshot.declare(row.name, row.kind)
        super().__init__(
            {BatchLeft: self._left, Trained: self._trained},
            {RequestEnded: self._answered, Relayed: self._relayed},
        )

    def _left(self, event: BatchLeft) -> None:
        if event.datums:  # an optim_step goes alone, and would halve the mean
            self._snapshot.record_histogram("tinkex.batch.size", event.requests)

    def _trained(self, event: Trained) -> None:
        name = "tinkex.training.loss_total"
        self._snapshot.record_summary(name, event.loss, event.model_id)

    def _answered(self, events: Sequence[RequestEnded]) -> None:
        """Count requests of callers that were answered."""
        took_ms, good = [], 0
        for event in events:
            if event.wanted and event.status is not None:
                good += 200 <= event.status < 300
                took_ms.append(event.duration_s * 1000)
        self._count(took_ms, good)

    def _relayed(self, events: Sequence[Relayed]) -> None:
        asked = [event for event in events if event.handler is not None]
        good = sum(200 <= event.status < 300 for event in asked)
        self._count([(event.ended - event.began) * 1000 for event in asked], good)

    def _count(self, took_ms: Sequence[float], good: int) -> None:
        self._snapshot.increment("tinkex.requests.total", len(took_ms))
        self._snapshot.increment("tinkex.requests.success", good)
        self._snapshot.increment("tinkex.requests.failure", len(took_ms) - good)
        self._snapshot.record_histogram("tinkex.request.duration_ms", *took_ms)


class Intervals:
    """Tells of a snapshot again and again, while it is started.

    Args:
        snapshot: what is told.
        interval_s: time between two.
        clock: measures that.
        hub: is told.
    """

    def __init__(self, snapshot: Snapshot, interval_s: float, *, clock: Clock, hub: Hub) -> None:
        self._snapshot = snapshot
        self._interval_s = interval_s
        self._clock = clock
        self._hub = hub
        self._call_off: Callable[[], None] | None = None
        self._before = (0.0, 0.0)

    def reconfigure(self, interval_s: float) -> None:
        """Tell at other intervals, the first one when one has passed from now."""
        self._interval_s = interval_s
        if self._call_off is not None:
            self.stop()
            self.start()

    def start(self) -> None:
        """Tell the first one when an interval has passed."""
        self._call_off = self._clock.call_later(self._interval_s, self._tell)

    def stop(self) -> None:
        """Tell no more."""
        if self._call_off is not None:
            self._call_off()
            self._call_off = None

    def _tell(self) -> None:
        self.start()
        self._hub.flush()
        total = self._snapshot.counted("tinkex.requests.total")
        failed = self._snapshot.counted("tinkex.requests.failure")
        before = self._before if total >= self._before[0] else (0.0, 0.0)  # else it was reset
        self._before = total, failed
        self._hub.tell(
            SnapshotTaken(
                self._snapshot.get_all_metrics(),
                requests=int(total - before[0]),
                failures=max(0, int(failed - before[1])),
                recent_ms=self._snapshot.recent("tinkex.request.duration_ms"),
            )
        )
