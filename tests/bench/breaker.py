"""What the breaker costs each call: a permit, and its outcome. Run by `make bench-breaker`.

It is the whole breaker, as it is by default: the gate, aiobreaker, the window of the failure rate.
Processor time, for others use the machine too; the least of several runs is what the code takes.
"""

import contextlib
import statistics
import time
from collections.abc import Callable

from tinkex_proxy.core.breaker import GateSettings
from tinkex_proxy.core.circuit import Force
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.core.trip import TripSettings
from tinkex_proxy.errors import CircuitOpen
from tinkex_proxy.runtime.breakers import Breaker, BreakerSettings
from tinkex_proxy.runtime.clock import MonotonicClock
from tinkex_proxy.runtime.hub import Hub

CALLS = 100_000
RUNS = 7


def breaker(**trip: object) -> Breaker:
    """One that does not trip."""
    chosen = TripSettings(**{"failure_threshold": 10**9, "failure_rate": 0.5, **trip})
    return Breaker(
        "b",
        BreakerSettings(gate=GateSettings(trip=chosen)),
        clock=MonotonicClock(),
        hub=Hub([], on_broken=print),
        wall_clock=time.monotonic,
        draw=lambda: 0.5,
    )


def measured(name: str, one: Callable[[], object]) -> None:
    """Print the microseconds of one call."""
    runs = []
    for _ in range(RUNS):
        began = time.process_time()
        for _ in range(CALLS):
            one()
        runs.append((time.process_time() - began) / CALLS * 1e6)
    least, median = min(runs), statistics.median(runs)
    print(f"{name:34s} least {least:5.2f} us, median {median:5.2f} us")


def main() -> None:
    """Print what each kind of outcome costs."""
    usual, adaptive, opened = breaker(), breaker(adaptive=True), breaker()
    failing = breaker(minimum_calls=10**9)
    opened.force(Force.OPEN)

    def refused() -> None:
        with contextlib.suppress(CircuitOpen):
            opened.acquire()

    measured("nothing", lambda: None)
    measured(
        "permit, success", lambda: usual.settle(usual.acquire(), Outcome.SUCCESS, "answered 200")
    )
    measured(
        "permit, success, adaptive",
        lambda: adaptive.settle(adaptive.acquire(), Outcome.SUCCESS, "answered 200"),
    )
    measured(
        "permit, failure",
        lambda: failing.settle(failing.acquire(), Outcome.FAILURE, "answered 503"),
    )
    measured("refusal", refused)


if __name__ == "__main__":
    main()
