"""A second run of the proxy on the journal of the first.

The first one's end is the moment at which its records are copied, and what it does after that is of
no account. Real deaths are in tests/crash.
"""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from tests.api.conftest import Running, listening
from tests.api.doors import Door, Switch
from tests.api.driving import datum, stalled, step, train
from tests.api.sdk_calls import logprobs, message, result, send
from tests.api.test_sdk_lane import made_by_sdk
from tinkex_proxy.core.outcome import Outcome
from tinkex_proxy.runtime.store import Kind, MemoryStore
from tinkex_proxy.sandbox.app import create_app
from tinkex_proxy.sandbox.options import Options


class Runs:
    """Runs of the proxy before one sandbox, which counts what it is asked."""

    def __init__(self, start, url: str, door: Door, switch: Switch) -> None:
        self._start = start
        self._url = url
        self.door = door
        self.switch = switch
        self.store = MemoryStore()
        self._running: list[Running] = []

    async def first(self, **sections: object) -> Running:
        self._running.append(await self._start(self._url, store=self.store, **sections))
        return self._running[-1]

    async def second(self, **sections: object) -> Running:
        """Begins with all that the journal has been told so far."""
        await self._running[-1].proxy.services.accounts.of_default().tools.book.journal.commit()
        self.store = MemoryStore(self.store.records)
        return await self.first(**sections)

    def sent(self, model_id: str) -> int:
        """How many `forward_backward` requests of a model came to the sandbox."""
        return sum(model_id.encode() in body for body in self.door.bodies["forward_backward"])

    async def written(self, kind: Kind, count: int = 1) -> None:
        """Until the journal has so many records of a kind."""
        while sum(of is kind for of, _ in self.store.records) < count:
            await asyncio.sleep(0.001)


@pytest.fixture
async def runs(start):
    switch = Switch(create_app(Options(tick_s=0.001)))
    door = Door(switch)
    async with AsyncExitStack() as stack:
        yield Runs(start, await stack.enter_async_context(listening(door)), door, switch)


async def test_a_models_lane_goes_on_where_it_was(runs) -> None:
    first = await runs.first()
    model_id = await first.create()
    await train(first, model_id, [datum(1)])
    await step(first, model_id)
    await runs.written(Kind.LANE)
    second = await runs.second()
    assert [m["model_id"] for m in (await second.client.get("/v1/models")).json()["models"]] == [
        model_id
    ]
    assert (await train(second, model_id, [datum(2)])).status_code == 200
    lane = (await second.client.get(f"/v1/models/{model_id}")).json()["lane"]
    assert lane["next_seq"] == 4
    assert runs.door.asked()["create_session"] == 1


async def test_a_second_model_of_the_session_has_a_number_of_its_own(runs) -> None:
    first = await runs.first()
    one = await first.create()
    second = await runs.second()
    other = await second.create()
    assert one != other
    assert runs.door.asked()["create_session"] == 1


async def test_a_key_has_the_same_name_in_both_runs_and_its_own_models(runs) -> None:
    first = await runs.first()
    made = await first.post("/v1/models", {"base_model": "sandbox/tiny-1"}, x_api_key="tml-a")
    second = await runs.second()
    for key, ids in (("tml-a", [made.json()["model_id"]]), ("tml-b", [])):
        listed = await second.client.get("/v1/models", headers={"x-api-key": key})
        assert [model["model_id"] for model in listed.json()["models"]] == ids
    assert b"tml-a" not in b"".join(runs.store.records.values())


async def test_a_model_that_was_being_made_is_made_once(runs) -> None:
    runs.switch.keep_results()
    first = await runs.first()
    body = {"base_model": "sandbox/tiny-1", "rank": 8}
    making = asyncio.ensure_future(first.post("/v1/models", body, idempotency_key="m"))
    await runs.written(Kind.CREATION)
    while runs.door.asked()["create_model"] == 0:
        await asyncio.sleep(0.001)
    second = await runs.second()
    runs.switch.switch_on()
    made = await second.post("/v1/models", body, idempotency_key="m")
    assert made.json()["model_id"].endswith(":train:0")
    assert len((await second.client.get("/v1/models")).json()["models"]) == 1
    assert (await making).json() == made.json()
    await runs.written(Kind.CALL)
    third = await runs.second()
    again = await third.post("/v1/models", body, idempotency_key="m")
    assert again.json() == made.json()
    assert not [1 for kind, _ in runs.store.records if kind is Kind.CREATION]


async def test_a_call_under_a_key_that_was_admitted_is_not_sent_again(runs) -> None:
    first = await runs.first()
    model_id = await first.create()
    runs.switch.keep_results()
    cut_off = asyncio.ensure_future(train(first, model_id, [datum(1)], idempotency_key="k"))
    while runs.switch.kept == 0:
        await asyncio.sleep(0.001)
    second = await runs.second()
    repeated = asyncio.ensure_future(train(second, model_id, [datum(1)], idempotency_key="k"))
    await asyncio.sleep(0)
    runs.switch.switch_on()
    answer = await repeated
    assert answer.status_code == 200, answer.text
    assert answer.json() == (await cut_off).json()
    assert runs.sent(model_id) == 1
    assert (await step(second, model_id)).status_code == 200


async def test_a_promised_answer_is_there_though_nobody_repeats_the_call(runs) -> None:
    first = await runs.first()
    model_id = await first.create()
    runs.switch.keep_results()
    promised = await train(first, model_id, [datum(1)], prefer="respond-async")
    future = f"/v1/futures/{promised.json()['future_id']}"
    while runs.switch.kept == 0:
        await asyncio.sleep(0.001)
    second = await runs.second()
    assert (await second.client.get(future)).status_code == 202
    runs.switch.switch_on()
    answer = await second.client.get(f"{future}?wait=10")
    assert (answer.status_code, answer.json()["batch"]["requests"]) == (200, 1)
    await runs.written(Kind.CALL)
    third = await runs.second()
    assert (await third.client.get(future)).json() == answer.json()


async def test_a_promised_call_that_had_not_left_runs_once(runs) -> None:
    """In the order in which the calls came."""
    first = await runs.first()
    model_id = await first.create()
    stalled(first, model_id)
    promises = [
        await train(first, model_id, [datum(n)], prefer="respond-async", x_tinkex_coalesce="off")
        for n in (1, 2, 3)
    ]
    second = await runs.second()
    futures = [f"/v1/futures/{promise.json()['future_id']}?wait=10" for promise in promises]
    answers = [(await second.client.get(future)).json() for future in futures]
    # The first may have been sent, so it was asked whether its repetition would be known again.
    assert [answer["batch"]["id"] for answer in answers] == [f"{model_id}#{n}" for n in (1, 3, 4)]


async def test_a_large_call_is_cut_as_before_though_the_limits_are_others(runs) -> None:
    first = await runs.first(batching={"max_datums": 2})
    model_id = await first.create()
    runs.switch.keep_results()
    data = [datum(n) for n in range(5)]
    cut_off = asyncio.ensure_future(train(first, model_id, data, idempotency_key="k"))
    model = first.proxy.services.accounts.of_default().models[model_id]
    while model.driver.lane.owed < 3:
        await asyncio.sleep(0.001)
    second = await runs.second()
    repeated = asyncio.ensure_future(train(second, model_id, data, idempotency_key="k"))
    await asyncio.sleep(0)
    runs.switch.switch_on()
    answer = (await repeated).json()
    assert answer["loss_fn_outputs"] == (await cut_off).json()["loss_fn_outputs"]
    assert runs.sent(model_id) == 3


async def test_items_of_a_batch_call_find_their_own_parts(runs) -> None:
    first = await runs.first()
    model_id = await first.create()
    runs.switch.keep_results()
    good = {"model_id": model_id, "data": [datum(1)]}
    body = {"requests": [good, {"model_id": model_id}, {**good, "data": [datum(2)] * 2}]}
    path = "/v1/forward_backward_batch"
    cut_off = asyncio.ensure_future(first.post(path, body, idempotency_key="k"))
    while runs.switch.kept == 0:
        await asyncio.sleep(0.001)
    second = await runs.second()
    runs.switch.switch_on()
    answer = await second.post(path, body, idempotency_key="k")
    results = answer.json()["results"]
    assert [one["status"] for one in results] == ["ok", "error", "ok"]
    assert [len(one["loss_fn_outputs"]) for one in (results[0], results[2])] == [1, 2]
    first_answer = (await cut_off).json()["results"]
    assert [results[0], results[2]] == [first_answer[0], first_answer[2]]
    assert runs.sent(model_id) == 1


async def test_an_open_breaker_keeps_no_call_from_what_was_sent_of_it(runs) -> None:
    first = await runs.first()
    model_id = await first.create()
    runs.switch.keep_results()
    cut_off = asyncio.ensure_future(train(first, model_id, [datum(1)], idempotency_key="k"))
    while runs.switch.kept == 0:
        await asyncio.sleep(0.001)
    second = await runs.second(circuit_breaker={"timeout_ms": 60_000})
    breaker = second.proxy.services.accounts.of_default().upstream.breaker
    while breaker.snapshot("u", "k")["state"] != "open":
        breaker.settle(breaker.acquire(), Outcome.FAILURE, "503")
    other = await train(second, model_id, [datum(2)])
    assert other.json()["code"] == "circuit_open"
    repeated = asyncio.ensure_future(train(second, model_id, [datum(1)], idempotency_key="k"))
    runs.switch.switch_on()
    while second.proxy.services.ledger.running == 0:
        await asyncio.sleep(0.001)
    breaker.reset()  # what was taken on waits for that, where the other was refused
    assert (await repeated).status_code == 200
    await cut_off


async def test_an_sdks_call_is_known_again_and_its_future_is_good(runs) -> None:
    first = await runs.first()
    model_id = await made_by_sdk(first)
    runs.switch.keep_results()
    submitted = await send(first, message(model_id, 1, 1, 2))
    second = await runs.second()
    again = await send(second, message(model_id, 1, 1, 2))
    assert again.json()["request_id"] == submitted.json()["request_id"]
    assert again.json() == submitted.json()
    reused = await send(second, message(model_id, 1, 3))
    assert reused.status_code == 409
    runs.switch.switch_on()
    answer = await result(second, submitted)
    assert len(logprobs(answer)) == 2
    following = await result(second, await send(second, message(model_id, 2, 3)))
    assert len(logprobs(following)) == 1


async def test_an_sdks_call_that_came_before_its_turn_goes_on_waiting_for_it(runs) -> None:
    first = await runs.first()
    model_id = await made_by_sdk(first)
    early = [await send(first, message(model_id, n, n)) for n in (2, 3)]
    second = await runs.second()
    (lane,) = (await second.client.get("/lanes")).json()["lanes"]
    assert (lane["held_back"], lane["next_seq"]) == (2, 1)
    late = await send(second, message(model_id, 1, 1))
    assert [len(logprobs(await result(second, one))) for one in (late, *early)] == [1, 1, 1]


async def test_sdks_that_share_a_request_have_their_own_parts_after_a_restart(runs) -> None:
    first = await runs.first(sdk={"coalesce": True})
    model_id = await first.create()
    release = stalled(first, model_id)
    blocking = asyncio.ensure_future(train(first, model_id, [datum(9)]))
    while not first.proxy.services.accounts.of_default().models[model_id].driver.lane.on_wire:
        await asyncio.sleep(0.001)
    senders = [
        asyncio.ensure_future(send(first, message(model_id, 1, n), x_tinkex_caller=name))
        for n, name in ((1, "a"), (2, "b"))
    ]
    await asyncio.sleep(0.02)
    runs.switch.keep_results()
    release.set()
    submitted = await asyncio.gather(*senders)
    second = await runs.second(sdk={"coalesce": True})
    runs.switch.switch_on()
    answers = [await result(second, one) for one in submitted]
    told = [one.headers["x-tinkex-batch"] for one in answers]
    assert [said.split("; ")[1:] for said in told] == [
        ["requests=2", "datums=2", f"index={n}"] for n in (0, 1)
    ]
    assert len({logprobs(one)[0] for one in answers}) == 2
    await blocking


async def test_a_call_of_a_model_that_is_gone_is_gone_too(runs) -> None:
    """Its lane is in the journal no more; its SDK is told that the future is no more."""
    first = await runs.first()
    model_id = await made_by_sdk(first)
    submitted = await send(first, message(model_id, 2, 1))  # held back
    runs.store.records = {
        at: value for at, value in runs.store.records.items() if at[0] is not Kind.MODEL
    }
    second = await runs.second()
    answer = await result(second, submitted)
    assert answer.status_code == 410
    while [1 for kind, _ in runs.store.records if kind is Kind.CALL]:
        await asyncio.sleep(0.001)


async def test_a_model_that_an_sdk_was_making_has_a_lane(runs) -> None:
    first = await runs.first()
    model_id = await made_by_sdk(first)
    await runs.written(Kind.MODEL)
    second = await runs.second()
    assert (await result(second, await send(second, message(model_id, 1, 1)))).status_code == 200
    lanes = (await second.client.get("/lanes")).json()["lanes"]
    assert [lane["model_id"] for lane in lanes] == [model_id]


async def test_a_session_that_ended_meanwhile_takes_its_models_along(runs) -> None:
    first = await runs.first()
    model_id = await first.create()
    second = await runs.second()
    session = second.proxy.services.accounts.of_default().session
    session.lost(session.current, "its heartbeat was answered 410")
    answer = await train(second, model_id, [datum(1)])
    assert answer.json()["code"] == "model_gone"
    third = await runs.second()
    assert (await third.client.get("/v1/models")).json() == {"models": []}
    assert {kind for kind, _ in runs.store.records} == {Kind.FACT}


async def test_a_deleted_model_is_not_there_after_a_restart(runs) -> None:
    first = await runs.first()
    model_id = await first.create()
    await train(first, model_id, [datum(1)])
    assert (await first.client.delete(f"/v1/models/{model_id}")).status_code == 200
    while [1 for kind, _ in runs.store.records if kind in {Kind.MODEL, Kind.LANE, Kind.BATCH}]:
        await asyncio.sleep(0.001)
    second = await runs.second()
    assert (await second.client.get("/v1/models")).json() == {"models": []}


async def test_what_is_over_leaves_nothing_in_the_journal(runs) -> None:
    first = await runs.first()
    model_id = await first.create()
    for n in range(5):
        assert (await train(first, model_id, [datum(n)])).status_code == 200
        assert (await step(first, model_id)).status_code == 200
    while [1 for kind, _ in runs.store.records if kind in {Kind.BATCH, Kind.CALL}]:
        await asyncio.sleep(0.001)
    kinds = sorted({kind for kind, _ in runs.store.records})
    assert kinds == [Kind.FACT, Kind.SESSION, Kind.MODEL, Kind.LANE]
    assert json.loads(json.dumps(model_id)) in str(runs.store.records.keys())
