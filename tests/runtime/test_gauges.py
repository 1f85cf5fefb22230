"""What is read at scrape time: right without traffic, and gone with the key."""

import asyncio
from functools import partial

import pytest

from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.retry import Happened, Kind
from tinkex_proxy.runtime.account import Account, AccountSettings
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.futures import QUEUE_STATES, Poller
from tinkex_proxy.runtime.gauges import families
from tinkex_proxy.runtime.lanes import Tools
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


def values(accounts: list[Account], name: str) -> dict[str, float]:
    return dict(families(accounts)[f"tinkex_proxy_{name}"].read())


def test_without_a_key_there_are_the_states_and_nothing_else(made) -> None:
    assert values([], "queue_state") == dict.fromkeys(QUEUE_STATES, 0)
    for name in ("retry_budget_remaining", "held_back_remaining_seconds", "held_back_seconds"):
        assert values([], name) == {}


async def test_each_key_shows_its_own(bench, made, reply) -> None:
    """And no longer when its account is gone: a caller may bring a new key with every call."""
    calm, held = made("calm"), made("held", reply(429, retry_after="7"))
    accounts = [calm, held]
    await held.upstream.ask(SUBMIT)
    asking = held.upstream.retries.begin(Kind.TRAINING)
    await held.upstream.retries.wait_s(asking, Happened.LOST)
    assert values(accounts, "retry_budget_remaining") == {"calm": 100, "held": 99}
    assert values(accounts, "held_back_remaining_seconds") == {"calm": 0, "held": 7}
    bench.clock.advance(3)
    assert values(accounts, "held_back_remaining_seconds") == {"calm": 0, "held": 4}
    assert values(accounts, "held_back_seconds") == {"calm": 0, "held": 3}
    accounts.remove(held)
    assert values(accounts, "held_back_seconds") == {"calm": 0}


async def test_the_states_of_all_keys_are_added_up(made, reply) -> None:
    waiting = {"type": "try_again", "queue_state": "paused_rate_limit"}
    clock = ManualClock()
    accounts = [made(name, reply(408, waiting), reply(200), clock=clock) for name in ("a", "b")]
    polls = (account.tools.poller.result("r", on_state=lambda _: None) for account in accounts)
    results = asyncio.gather(*polls)
    while clock.pending < 2:
        await asyncio.sleep(0)
    assert values(accounts, "queue_state")["paused_rate_limit"] == 2
    clock.advance(1)
    await results
    assert values(accounts, "queue_state") == dict.fromkeys(QUEUE_STATES, 0)
