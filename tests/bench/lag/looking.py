"""`tinkex-proxy`, its event loop looked at 200 times a second, in steps of half a millisecond.

The metric is the proxy's own; twice a second, as it is looked at otherwise, is enough in a week and
too little in seconds. Linux counts for each thread how long it could have run and had no processor.
Two more histograms are the lag without those waits: of the loop's own thread, which leaves too much
(the thread that has the interpreter waits for a processor too), and of all threads, which takes too
much away (they wait side by side). What the proxy itself does to its loop lies between the two.

With `--witness SECONDS` it is an event loop with nothing to do, and writes what it met at its end.
"""

import json
import os
import sys
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from tinkex_proxy import assembly
from tinkex_proxy.cli import main
from tinkex_proxy.runtime import loop_lag
from tinkex_proxy.runtime.clock import MonotonicClock
from tinkex_proxy.runtime.tallies import Ladder

LAG = "tinkex_proxy_event_loop_lag_seconds"
AT_MOST = "bench_event_loop_held_up_at_most_seconds"
AT_LEAST = "bench_event_loop_held_up_at_least_seconds"
INTERVAL_S = 0.005
STEPS_S = (*(step / 2000 for step in range(1, 201)), 0.2, 0.5, 1.0)
TASKS = Path("/proc/self/task")


def waits_s() -> tuple[float, float]:
    """How long threads could have run so far and had no processor: the loop's own, and all."""
    spent: dict[str, int] = {}
    for task in TASKS.iterdir():
        try:
            spent[task.name] = int((task / "schedstat").read_text().split()[1])
        except OSError:  # it has ended
            continue
    return spent[str(os.getpid())] / 1e9, sum(spent.values()) / 1e9


class Bounded:
    """The metric, and its two bounds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ladders = [
            Ladder(name, "Late.", buckets=STEPS_S, registry=registry)
            for name in (LAG, AT_MOST, AT_LEAST)
        ]
        self._before = waits_s()

    def observe(self, late_s: float) -> None:
        """Note one look, and what was waited since the last."""
        waited = [now - then for now, then in zip(waits_s(), self._before, strict=True)]
        for ladder, less_s in zip(self._ladders, (0.0, *waited), strict=True):
            ladder.observe(max(0.0, late_s - less_s))
        self._before = waits_s()


def witness(seconds: float) -> None:
    """Look at an idle loop, and write how often it was at most how late, as JSON."""
    found: list[float] = []

    async def idle() -> None:
        looking = loop_lag.LoopLag(MonotonicClock(), found.append)
        looking.start()
        await MonotonicClock().sleep(seconds)
        looking.stop()

    uvloop.run(idle())
    bounds = [*STEPS_S, float("inf")]
    print(json.dumps([(bound, sum(late <= bound for late in found)) for bound in bounds]))


if __name__ == "__main__":
    loop_lag.INTERVAL_S = INTERVAL_S
    if sys.argv[1] == "--witness":
        witness(float(sys.argv[2]))
    else:
        assembly.lag_metric = Bounded
        sys.exit(main())
