"""The engine: each request once, in the order of its numbers, one after the other."""

import asyncio
import threading

import pytest

from tinkex_proxy.sandbox.bodies import BadRequest
from tinkex_proxy.sandbox.engine import Engine, Live
from tinkex_proxy.sandbox.futures import Failed, Gone, Promises
from tinkex_proxy.sandbox.model import Base
from tinkex_proxy.sandbox.trainer import Trained


class Lane:
    """A model whose work writes down that it ran."""

    def __init__(self) -> None:
        self.engine = Engine(Promises(1000), tick_s=0.0)
        self.ran: list[str] = []
        self.live = self.model("m")

    def model(self, model_id: str) -> Live:
        live = Live(model_id, "s", Trained(Base(0), "b", 1, 0), next_seq=1)
        self.engine.models[model_id] = live
        return live

    def submit(self, seq_id: int | None, name: str = "", live: Live | None = None):
        name = name or str(seq_id)

        def work(_: Trained) -> dict[str, object]:
            self.ran.append(name)
            return {"name": name}

        return self.engine.submit(live or self.live, seq_id, name.encode(), work)


@pytest.fixture
async def lane():
    lane = Lane()
    yield lane
    await lane.engine.close()


async def test_requests_run_in_the_order_of_their_numbers_however_they_come(lane) -> None:
    promises = [lane.submit(seq_id) for seq_id in (3, 2, 5, 1, 4)]
    await asyncio.gather(*(promise.done.wait() for promise in promises))
    assert lane.ran == ["1", "2", "3", "4", "5"]


async def test_a_request_waits_for_the_one_before_it_to_come(lane) -> None:
    late = lane.submit(2)
    other = lane.submit(1, "other", lane.model("other"))
    await other.done.wait()
    assert lane.ran == ["other"]
    assert not late.done.is_set()
    lane.submit(1)
    await late.done.wait()
    assert lane.ran == ["other", "1", "2"]


async def test_a_request_waits_for_the_one_before_it_to_end_and_other_models_do_not(lane) -> None:
    release = threading.Event()
    held = lane.engine.submit(lane.live, 1, b"1", lambda _: {"held": release.wait(30)})
    after = lane.submit(2)
    await lane.submit(1, "other", lane.model("other")).done.wait()
    assert lane.ran == ["other"]
    assert not after.done.is_set()
    release.set()
    await after.done.wait()
    assert held.result == {"held": True}


async def test_the_same_number_and_body_is_the_same_request(lane) -> None:
    first = lane.submit(1)
    assert lane.submit(1) is first
    await first.done.wait()
    assert lane.submit(1) is first
    waiting = lane.submit(3)
    assert lane.submit(3) is waiting
    await lane.submit(2).done.wait()
    await waiting.done.wait()
    assert lane.ran == ["1", "2", "3"]


async def test_the_same_number_with_another_body_is_a_conflict(lane) -> None:
    first = lane.submit(1)
    with pytest.raises(BadRequest, match="reused") as refused:
        lane.submit(1, "other")
    assert refused.value.status == 409
    await first.done.wait()
    assert lane.ran == ["1"]


async def test_a_number_that_has_passed_is_refused_and_not_left_waiting(lane) -> None:
    with pytest.raises(BadRequest, match="has passed") as refused:
        lane.submit(0)
    assert refused.value.status == 409


async def test_requests_without_a_number_run_as_they_come_after_those_with_one(lane) -> None:
    promises = [lane.submit(1), lane.submit(None, "a"), lane.submit(None, "b")]
    await promises[-1].done.wait()
    await lane.submit(None, "c").done.wait()
    assert lane.ran == ["1", "a", "b", "c"]


async def test_a_request_that_fails_says_whose_fault_it_was_and_the_next_one_runs(lane) -> None:
    def refuse(_: Trained) -> dict[str, object]:
        raise BadRequest("no such thing", 404)

    def break_down(_: Trained) -> dict[str, object]:
        raise ZeroDivisionError("of course")

    user = lane.engine.submit(lane.live, 1, b"1", refuse)
    server = lane.engine.submit(lane.live, 2, b"2", break_down)
    await lane.submit(3).done.wait()
    assert user.result == Failed("no such thing", "user")
    assert server.result == Failed("ZeroDivisionError: of course", "server")


async def test_what_waits_on_a_model_that_ends_never_runs_and_is_said_to_be_gone(lane) -> None:
    late = lane.submit(2)
    lane.engine.remove(lane.live)
    await late.done.wait()
    assert isinstance(late.result, Gone)
    with pytest.raises(BadRequest, match="not found") as refused:
        lane.engine.find("m")
    assert refused.value.status == 404
    assert lane.ran == []


async def test_a_model_that_ends_finishes_what_runs_and_starts_nothing_more(lane) -> None:
    started, release = threading.Event(), threading.Event()

    def hold(_: Trained) -> dict[str, object]:
        started.set()
        return {"released": release.wait(30)}

    held = lane.engine.submit(lane.live, 1, b"1", hold)
    lane.submit(2)
    runner = lane.live.runner
    await asyncio.to_thread(started.wait, 30)
    lane.engine.remove(lane.live)
    release.set()
    await runner
    assert held.result == {"released": True}
    assert lane.ran == []


async def test_close_ends_what_runs(lane) -> None:
    engine = Engine(Promises(10), tick_s=3600)
    promise = Promises(10).make()
    engine.later(promise, dict)
    await engine.close()
    assert not promise.done.is_set()
