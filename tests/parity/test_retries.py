"""What is asked again, how often and after how long: the rows RT of docs/parity.md."""

import random

import pytest

from tinkex_proxy.config.sections import UpstreamSettings
from tinkex_proxy.core.outcome import Fault, Operation
from tinkex_proxy.errors import UpstreamFailed
from tinkex_proxy.runtime import trainer
from tinkex_proxy.runtime.submit import Admitted, Refused, Submitter
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.runtime.upstream import Ask
from tinkex_proxy.wire import plain

STEP = plain.OptimStep(model_id="m")
DEFAULTS = UpstreamSettings()
ASK = Ask(operation=Operation.SUBMIT, path="/api/v1/optim_step", body=b"{}")


async def submit(scripted, answers):
    upstream, requests = scripted.upstream(answers)
    submitter = Submitter(upstream, scripted.clock, patience_s=DEFAULTS.submit_retry_s)
    return await submitter.submit(ASK), requests


async def test_waits_are_drawn_below_a_ceiling_that_doubles(scripted, reply, monkeypatch) -> None:
    """RT-01: full jitter, from nothing to 250 ms, then 500 ms ... and never above 10 s."""
    draws = iter([0.0, *[0.999999] * 9])
    monkeypatch.setattr(random, "random", lambda: next(draws))
    await submit(scripted, [*[reply(503)] * 10, reply(200, {"request_id": "r"})])
    assert scripted.clock.slept == pytest.approx([0, 0.5, 1, 2, 4, 8, 10, 10, 10, 10], rel=1e-3)


@pytest.mark.parametrize(
    "lost", [402, 408, 429, 500, 502, 503, 504, 599, Fault.CONNECT, Fault.RESET, Fault.TIMEOUT]
)
async def test_what_may_pass_is_asked_again(scripted, reply, lost) -> None:
    """RT-02: 408, 429, 5xx and transport errors, as tinkex; and 402, a pause in billing."""
    first = lost if isinstance(lost, Fault) else reply(lost)
    verdict, requests = await submit(scripted, [first, reply(200, {"request_id": "r"})])
    assert isinstance(verdict, Admitted)
    assert len(requests) == 2


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 409, 410, 413, 422])
async def test_what_will_not_pass_is_asked_once(scripted, reply, status) -> None:
    """RT-02: 3xx and other 4xx, as tinkex; and 409, a number or a name that stays taken."""
    verdict, requests = await submit(scripted, [reply(status)])
    assert isinstance(verdict, Refused)
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry_after_ms": "2500", "retry_after": "9"}, 2.5, 2.75),
        ({"retry_after": "9"}, 9, 9.25),
        ({}, 1, 1.25),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 1, 1.25),
        ({"retry_after": "600"}, 60, 60.25),
    ],
)
async def test_a_429_is_waited_out_as_told(scripted, reply, headers, least, most) -> None:
    """RT-03: milliseconds before seconds before one second; a date is one second too."""
    await submit(scripted, [reply(429, **headers), reply(200)])
    (slept,) = scripted.clock.slept
    assert least <= slept <= most


async def test_a_submit_has_a_minute_and_is_repeated_for_five(scripted, reply) -> None:
    """RT-05: time is what is counted, not attempts."""
    verdict, requests = await submit(scripted, lambda _: reply(500))
    assert isinstance(verdict, Refused)
    assert {request.timeout_s for request in requests} == {60} == {DEFAULTS.request_timeout_s}
    assert len(requests) > 11
    assert 300 <= sum(scripted.clock.slept) <= 310


@pytest.mark.parametrize("category", ["user", "server", "unknown"])
async def test_a_request_that_failed_is_not_submitted_again(
    account, service, reply, category
) -> None:
    """RT-07: the user's fault never; nor the server's, because half of it may have run."""
    service.instead["retrieve_future"] = [reply(200, {"error": "no", "category": category})]
    with pytest.raises(UpstreamFailed) as caught:
        await trainer.optim_step(account, STEP, Ticket())
    assert caught.value.category == category
    assert len(service.requests) == 1


async def test_repetitions_carry_the_key_of_their_request(account, service, reply) -> None:
    """RT-08: 16 random bytes in hex, the same for each repetition and for no other request."""
    account.tools.recognition._known = True  # the upstream knows a repetition again
    service.instead["optim_step"] = [reply(503), Fault.RESET]
    for _ in range(2):
        await trainer.optim_step(account, STEP, Ticket())
    keys = [request.headers["x-idempotency-key"] for request in service.requests]
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert all(len(bytes.fromhex(key)) == 16 for key in keys)
