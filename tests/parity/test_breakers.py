"""Circuit breakers and their registry, as tinkex's tests hold them."""

import pytest

from tinkex_proxy.assembly import build
from tinkex_proxy.config import Settings
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.errors import CircuitOpen
from tinkex_proxy.runtime.accounts import Accounts
from tinkex_proxy.runtime.breakers import Breaker


def accounts(**options: object) -> Accounts:
    named = {name.replace("__", "."): value for name, value in options.items()}
    settings = Settings.load({"upstream.base_url": "http://127.0.0.1:1", **named})
    return build(settings).services.accounts


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.settle(breaker.acquire(), Outcome.FAILURE, "answered 503")


def state(breaker: Breaker) -> str:
    return breaker.snapshot("u", "k")["state"]


async def test_a_new_breaker_is_closed_and_waits_for_five_failures() -> None:
    chosen = Settings.load({}).circuit_breaker
    assert (chosen.failure_threshold, chosen.timeout_ms, chosen.half_open_max_calls) == (
        5,
        30_000,
        1,
    )
    breaker = accounts().of("tml-a").upstream.breaker
    shown = breaker.snapshot("u", "k")
    assert (shown["state"], shown["consecutive_failures"]) == ("closed", 0)
    fail(breaker, 4)
    assert state(breaker) == "closed"
    fail(breaker, 1)
    assert state(breaker) == "open"


async def test_after_two_failures_of_two_the_next_call_is_refused() -> None:
    breaker = accounts(circuit_breaker__failure_threshold=2).of("tml-a").upstream.breaker
    fail(breaker, 2)
    with pytest.raises(CircuitOpen):
        breaker.acquire()


async def test_of_twenty_failures_at_once_none_is_lost() -> None:
    """All are sent before the first is answered."""
    breaker = accounts(circuit_breaker__failure_threshold=20).of("tml-a").upstream.breaker
    under_way = [breaker.acquire() for _ in range(20)]
    for permit in under_way:
        assert state(breaker) == "closed"
        breaker.settle(permit, Outcome.FAILURE, "answered 503")
    shown = breaker.snapshot("u", "k")
    assert (shown["state"], shown["consecutive_failures"]) == ("open", 20)


async def test_the_outage_of_one_key_leaves_the_breakers_of_others_closed() -> None:
    registry = accounts()
    breakers = [registry.of(f"tml-{name}").upstream.breaker for name in "abc"]
    fail(breakers[1], 5)
    assert [state(breaker) for breaker in breakers] == ["closed", "open", "closed"]
    assert len({breaker.id for breaker in breakers}) == 3


async def test_breakers_are_bounded_and_the_idlest_gives_way_to_a_new_one() -> None:
    """A key that comes back finds a new breaker, closed."""
    registry = accounts(upstream__max_keys=3)
    first = registry.of("tml-0").upstream.breaker
    fail(first, 5)
    for number in range(1, 50):
        registry.of(f"tml-{number}")
        assert len(registry) <= 3
    again = registry.of("tml-0").upstream.breaker
    assert again is not first
    assert (again.id, state(again)) == (first.id, "closed")
