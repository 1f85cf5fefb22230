"""What is read at scrape time: right without traffic, and gone with the key."""

import asyncio
from functools import partial

import pytest

from tinkex_proxy.core.admission import Bounds
from tinkex_proxy.core.circuit import Force
from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.retry import Happened, Kind
from tinkex_proxy.runtime.account import Account, AccountSettings
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.futures import QUEUE_STATES, Poller
from tinkex_proxy.runtime.gauges import breaker_number, readings, sessions
from tinkex_proxy.runtime.intake import Intake
from tinkex_proxy.runtime.journal import NoJournal
from tinkex_proxy.runtime.lanes import Tools
from tinkex_proxy.runtime.ledger import Ledger, Retention
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.submit import Submitter
from tinkex_proxy.runtime.upstream import Ask

SUBMIT = Ask(operation=Operation.SUBMIT, path="/api/v1/optim_step")


@pytest.fixture
def made(bench, reply):
    def make(key_id: str, *answers: object, clock: ManualClock = bench.clock) -> Account:
        upstream, _ = bench.upstream(answers)
        tools = Tools(
            submitter=Submitter(upstream, bench.clock),
            poller=Poller(upstream, clock),
            knows=partial(knows_model, upstream, bench.clock),
            tasks=bench.tasks,
            clock=bench.clock,
            hub=bench.hub,
        )
        return Account(key_id, upstream, tools, AccountSettings(limits=Limits()))

    return make


@pytest.fixture
def read(bench):
    """What a series is read as; `accounts` may change between two readings."""
    ledger = Ledger(
        bench.clock, bench.tasks, Retention(), journal=NoJournal(), wall_clock=bench.clock.now
    )
    intake = Intake(Bounds(), clock=bench.clock, hub=bench.hub)

    def now(accounts: list[Account], name: str) -> float | dict[str, float]:
        all_of_it = readings(accounts, ledger, intake, bench.tasks, bench.clock)
        value = all_of_it[f"tinkex_proxy_{name}"]()
        return value if isinstance(value, int | float) else dict(value)

    return now


def test_without_a_key_there_are_the_states_and_nothing_else(read) -> None:
    assert read([], "queue_state") == dict.fromkeys(QUEUE_STATES, 0)
    for name in ("retry_budget_remaining", "held_back_remaining_seconds"):
        assert read([], name) == {}


async def test_each_key_shows_its_own(bench, made, reply, read) -> None:
    """And no longer when its account is gone: a caller may bring a new key with every call."""
    calm, held = made("calm"), made("held", reply(429, retry_after="7"))
    accounts = [calm, held]
    await held.upstream.ask(SUBMIT)
    asking = held.upstream.retries.begin(Kind.TRAINING)
    await held.upstream.retries.wait_s(asking, Happened.LOST)
    assert read(accounts, "retry_budget_remaining") == {"calm": 100, "held": 99}
    assert read(accounts, "held_back_remaining_seconds") == {"calm": 0, "held": 7}
    bench.clock.advance(3)
    assert read(accounts, "held_back_remaining_seconds") == {"calm": 0, "held": 4}
    assert read(accounts, "held_back_seconds_total") == {"calm": 0, "held": 3}
    accounts.remove(held)
    assert read(accounts, "held_back_seconds_total") == {"calm": 0}


async def test_the_states_of_all_keys_are_added_up(made, reply, read) -> None:
    waiting = {"type": "try_again", "queue_state": "paused_rate_limit"}
    clock = ManualClock()
    accounts = [made(name, reply(408, waiting), reply(200), clock=clock) for name in ("a", "b")]
    polls = (account.tools.poller.result("r", on_state=lambda _: None) for account in accounts)
    results = asyncio.gather(*polls)
    while clock.pending < 2:
        await asyncio.sleep(0)
    assert read(accounts, "queue_state")["paused_rate_limit"] == 2
    clock.advance(1)
    await results
    assert read(accounts, "queue_state") == dict.fromkeys(QUEUE_STATES, 0)


async def test_the_oldest_result_that_is_awaited_tells_its_age(bench, made, reply, read) -> None:
    clock = ManualClock()
    waiting = {"type": "try_again", "queue_state": "active"}
    made_of = [made(name, reply(408, waiting), reply(200), clock=clock) for name in ("a", "b")]
    assert (read(made_of, "future_age_seconds"), read(made_of, "upstream_futures_pending")) == (
        0,
        0,
    )
    polls = []
    for account in made_of:
        polls.append(asyncio.create_task(_result_of(account)))
        while clock.pending < len(polls):
            await asyncio.sleep(0)
        clock.advance(0.01)
    bench.clock.advance(clock.now() - bench.clock.now())
    assert read(made_of, "upstream_futures_pending") == 2
    assert read(made_of, "future_age_seconds") == pytest.approx(0.02)
    clock.advance(1)
    await asyncio.gather(*polls)
    assert (read(made_of, "future_age_seconds"), read(made_of, "upstream_futures_pending")) == (
        0,
        0,
    )


async def _result_of(account: Account) -> None:
    await account.tools.poller.result("r", on_state=lambda _: None)


async def test_one_number_tells_the_worst_of_all_breakers(made, bench) -> None:
    accounts = [made("a"), made("b")]
    assert (breaker_number([]), breaker_number(accounts)) == (0, 0)
    accounts[1].upstream.breaker.force(Force.OPEN, ttl_s=5)
    assert breaker_number(accounts) == 1
    bench.clock.advance(5)
    assert breaker_number(accounts) == 2
    accounts[0].upstream.breaker.force(Force.OPEN)
    assert breaker_number(accounts) == 1
    accounts[0].upstream.breaker.force(Force.DISABLE)
    accounts[1].upstream.breaker.reset()
    assert breaker_number(accounts) == 0


def test_without_sessions_there_are_none(made) -> None:
    assert sessions([made("a")]) == 0
