"""Waiting for results, and what is said meanwhile: the rows FU and QS of docs/parity.md."""

import random

import pytest

from tinkex_proxy.config.sections import UpstreamSettings
from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.runtime import trainer
from tinkex_proxy.runtime.futures import Poller
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.wire import plain

PAUSED = {
    "type": "try_again",
    "queue_state": "paused_rate_limit",
    "queue_state_reason": "slow down",
}
HOLD_S = UpstreamSettings().poll_timeout_s


async def result(scripted, answers):
    upstream, requests = scripted.upstream(answers)
    poller = Poller(upstream, scripted.clock, hold_s=HOLD_S)
    return await poller.result("r", on_state=lambda _: None), requests


async def test_each_poll_is_one_request_of_45_seconds(scripted, reply) -> None:
    """FU-01: what a poll is answered is never repeated below the poll."""
    answers = [reply(503), reply(408), Fault.RESET, Fault.TIMEOUT, reply(429), reply(200, {"a": 1})]
    response, requests = await result(scripted, answers)
    assert response.status == 200
    assert [request.timeout_s for request in requests] == [45] * len(answers)
    assert len({request.body for request in requests}) == 1


@pytest.mark.parametrize("failure", [Fault.CONNECT, Fault.RESET, 502, 429])
async def test_waits_after_failures_are_drawn_below_a_ceiling_that_doubles(
    scripted, reply, monkeypatch, failure
) -> None:
    """FU-02: from nothing to 500 ms, then a second ... and never above 30 s."""
    monkeypatch.setattr(random, "random", lambda: 0.999999)
    failed = failure if isinstance(failure, Fault) else reply(failure)
    await result(scripted, [*[failed] * 8, reply(200, {"a": 1})])
    assert scripted.clock.slept == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30], rel=1e-3)


@pytest.mark.parametrize(
    ("status", "body"), [(408, {}), (408, PAUSED), (200, PAUSED), (500, {}), (503, {})]
)
async def test_an_upstream_that_answers_at_once_is_not_asked_in_a_tight_loop(
    scripted, reply, monkeypatch, status, body
) -> None:
    """FU-03, FU-04: fifteen polls take more than ten seconds, whatever they are answered."""
    monkeypatch.setattr(random, "random", lambda: 0.5)
    await result(scripted, [*[reply(status, body)] * 15, reply(200, {"a": 1})])
    assert len(scripted.clock.slept) == 15
    assert sum(scripted.clock.slept) > 10


async def test_a_poll_that_was_held_is_followed_at_once(scripted, reply) -> None:
    """FU-03: what the upstream has held back itself needs no further wait."""

    def held(request):
        scripted.clock.advance(40)
        return reply(408, PAUSED) if len(requests) < 20 else reply(200, {"a": 1})

    upstream, requests = scripted.upstream(held)
    await Poller(upstream, scripted.clock).result("r", on_state=lambda _: None)
    assert scripted.clock.slept == []


async def test_a_request_that_queues_for_hours_is_waited_for(scripted, reply) -> None:
    """RT-06: there is no progress timeout; the caller's own deadline ends a wait."""
    began = scripted.clock.now()

    def queued(request):
        scripted.clock.advance(44)
        return reply(408, PAUSED) if len(requests) < 1000 else reply(200, {"a": 1})

    upstream, requests = scripted.upstream(queued)
    response = await Poller(upstream, scripted.clock).result("r", on_state=lambda _: None)
    assert response.status == 200
    assert scripted.clock.now() - began > 7200


async def test_the_upstreams_own_reason_is_shown_while_it_holds(account, service, reply) -> None:
    """FU-07, QS-01: state and reason as they came, for as long as the request waits."""
    shown = []
    answer = service.result

    def looking(name, body):
        shown.append(account.model("m").snapshot(0.0))
        return answer(name, body)

    service.result = looking
    service.instead["retrieve_future"] = [reply(200, PAUSED)]
    await trainer.optim_step(account, plain.OptimStep(model_id="m"), Ticket())
    shown.append(account.model("m").snapshot(0.0))
    told = [(lane["queue_state"], lane["queue_state_reason"]) for lane in shown]
    assert told == [("paused_rate_limit", "slow down"), (None, None)]
