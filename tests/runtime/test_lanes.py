"""A lane at work against a scripted upstream: what goes onto the wire, and who gets what."""

import asyncio
from functools import partial

import msgspec
import pytest

from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.lane import Lane
from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.errors import (
    ModelGone,
    OutcomeUnknown,
    UpstreamConflict,
    UpstreamFault,
    UpstreamRefused,
)
from tinkex_proxy.runtime.events import Note
from tinkex_proxy.runtime.futures import Poller, QueueState
from tinkex_proxy.runtime.lanes import LaneDriver, Tools
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.submit import Submitter
from tinkex_proxy.runtime.transport import Request, Response
from tinkex_proxy.runtime.upstream import PROTOBUF
from tinkex_proxy.runtime.work import Order, Training
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.datum import Flavour
from tinkex_proxy.wire.merge import Fragment
from tinkex_proxy.wire.sdk import SdkOrder

LIMITS = Limits(linger_s=0.005, idle_s=0.0)


class Service:
    """Admits every submit (unless told otherwise) and answers each future with its loss outputs."""

    def __init__(self, reply) -> None:
        self.reply = reply
        self.submits: list[dict[str, object]] = []
        self.instead: list[Response | Fault | None] = []
        self.known = True

    def __call__(self, request: Request) -> Response | Fault:
        body = msgspec.json.decode(request.body)
        if request.path.endswith("retrieve_future"):
            return self.result(int(body["request_id"]))
        if request.path.endswith("get_info"):
            return self.reply(200 if self.known else 404)
        self.submits.append({"path": request.path.rpartition("/")[2], **body})
        instead = self.instead.pop(0) if self.instead else None
        return instead or self.reply(200, {"request_id": str(len(self.submits) - 1)})

    def result(self, number: int) -> Response:
        submit = self.submits[number]
        if "forward_backward_input" not in submit:
            return self.reply(200, {"type": submit["path"], "seq": submit["seq_id"]})
        outputs = [
            {"logprobs": {"data": [d["n"]], "dtype": "float32", "shape": [1]}}
            for d in submit["forward_backward_input"]["data"]
        ]
        return self.reply(200, {"loss_fn_outputs": outputs, "metrics": {"x:mean": 1.0}})


def train(*numbers: int, coalesce: bool = True) -> Training:
    data = b",".join(b'{"n":%d}' % n for n in numbers)
    fragment = Fragment(Flavour.JSON, data, len(numbers), 10)
    return Training(
        fragment=fragment, loss_fn="cross_entropy", loss_fn_config={}, coalesce=coalesce
    )


STEP = Order("/api/v1/optim_step", {"type": "optim_step"})


@pytest.fixture
def service(reply) -> Service:
    return Service(reply)


@pytest.fixture
def gone() -> list[str]:
    return []


@pytest.fixture
def driver(bench, service, gone) -> LaneDriver:
    upstream, _ = bench.upstream(service)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock, patience_s=20),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=bench.clock,
        hub=bench.hub,
    )
    return LaneDriver("m", Lane(LIMITS), tools, flavour=Flavour.JSON, on_gone=gone.append)


async def answers(calls) -> list[object]:
    return await asyncio.gather(*(call.answer for call in calls), return_exceptions=True)


async def test_calls_share_a_request_and_get_their_own_part(driver, service) -> None:
    calls = driver.put([train(1), train(2, 3), train(4)], deadline=None)
    shares = await answers(calls)
    assert [s["path"] for s in service.submits] == ["forward_backward"]
    assert [[r["logprobs"].data for r in share.output.records] for share in shares] == [
        [[1]],
        [[2], [3]],
        [[4]],
    ]
    assert [(s.index, s.requests, s.datums, s.batch_id) for s in shares] == [
        (0, 3, 4, "m#1"),
        (1, 3, 4, "m#1"),
        (2, 3, 4, "m#1"),
    ]
    assert all(share.metrics == {"x:mean": 1.0} for share in shares)
    assert shares[0].output.metrics == {}


async def test_numbers_have_no_gap_whatever_is_shared(driver, service) -> None:
    await answers(driver.put([train(1), train(2), STEP, train(3), STEP], deadline=None))
    assert [(s["path"], s["seq_id"]) for s in service.submits] == [
        ("forward_backward", 1),
        ("optim_step", 2),
        ("forward_backward", 3),
        ("optim_step", 4),
    ]


async def test_the_bad_call_of_a_batch_is_found_and_the_others_succeed(
    driver, service, reply
) -> None:
    service.instead = [
        reply(400, {"detail": "bad"}),
        None,
        reply(400, {"detail": "bad"}),
        None,
        None,
    ]
    calls = driver.put([train(n) for n in range(4)], deadline=None)
    got = await answers(calls)
    failed = [n for n, answer in enumerate(got) if isinstance(answer, Exception)]
    assert len(failed) == 0 or "bad" in str(got[failed[0]])
    seqs = [s["seq_id"] for s in service.submits]
    assert seqs[0] == seqs[1] == 1
    assert sorted(set(seqs)) == list(range(1, max(seqs) + 1))


async def test_a_lost_answer_leaves_json_callers_with_the_truth(driver, service) -> None:
    """The JSON generation runs a repetition again, so it is not repeated."""
    service.instead = [Fault.RESET]
    (answer,) = await answers(driver.put([train(1)], deadline=None))
    assert isinstance(answer, OutcomeUnknown)
    assert len(service.submits) == 1


async def test_a_number_the_abandoned_submit_had_used_is_skipped(driver, service, reply) -> None:
    service.instead = [Fault.RESET, reply(409, {"detail": "reused"})]
    (lost,) = await answers(driver.put([STEP], deadline=None))
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert isinstance(lost, OutcomeUnknown)
    assert answer == {"type": "optim_step", "seq": 2}
    assert [s["seq_id"] for s in service.submits] == [1, 1, 2]


async def test_a_conflict_out_of_the_blue_is_told(driver, service, reply) -> None:
    service.instead = [reply(409, {"detail": "name taken"})]
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert isinstance(answer, UpstreamConflict)
    assert driver.lane.next_seq == 1


@pytest.mark.parametrize("status", [404, 410])
async def test_a_404_about_something_else_leaves_the_model_alive(
    driver, service, reply, gone, status
) -> None:
    """A checkpoint that is not there, or a call that this upstream does not have."""
    service.instead = [reply(status, {"detail": "No such checkpoint"}), None]
    refused, answer = await answers(driver.put([STEP, STEP], deadline=None))
    assert isinstance(refused, UpstreamRefused)
    assert answer == {"type": "optim_step", "seq": 1}
    assert gone == []


@pytest.mark.parametrize("status", [404, 410])
async def test_a_model_the_upstream_forgot_is_gone(driver, service, reply, gone, status) -> None:
    service.instead = [reply(status, {"detail": "Model not found"})]
    service.known = False
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert isinstance(answer, ModelGone)
    assert "Model not found" in gone[0]


async def test_a_failed_result_is_every_callers_own_error(driver, service, reply) -> None:
    service.result = lambda _: reply(200, {"error": "NaN", "category": "user"})
    first, second = await answers(driver.put([train(1), train(2)], deadline=None))
    assert first is not second
    assert (first.detail, first.category) == (second.detail, second.category) == ("NaN", "user")
    assert driver.lane.owed == 0


async def test_an_answer_of_the_wrong_length_reaches_nobody_as_his_own(
    driver, service, reply
) -> None:
    service.result = lambda _: reply(200, {"loss_fn_outputs": [], "metrics": {}})
    got = await answers(driver.put([train(1), train(2)], deadline=None))
    assert all(isinstance(answer, UpstreamFault) for answer in got)


async def test_an_answer_without_a_future_is_the_answer(driver, service, reply) -> None:
    service.instead = [reply(200, {"type": "unload_model", "ok": True})]
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert answer == {"type": "unload_model", "ok": True}


async def test_withdrawing_is_all_or_nothing(driver, service) -> None:
    calls = driver.put([train(1), train(2)], deadline=None)
    assert driver.withdraw(calls)
    assert not driver.withdraw(calls)
    kept = driver.put([train(3)], deadline=None)
    await answers(kept)
    assert not driver.withdraw(kept)
    assert len(service.submits) == 1
    assert service.submits[0]["seq_id"] == 1


async def test_closing_fails_what_has_not_left(driver) -> None:
    calls = driver.put([train(1)], deadline=None)
    driver.close(ModelGone("over"))
    (answer,) = await answers(calls)
    assert isinstance(answer, ModelGone)


async def test_a_bug_while_sending_leaves_no_caller_waiting(driver, bench) -> None:
    """Its own caller is told, the log has the rest, and the lane goes on."""
    submitter = driver._tools.submitter
    sound = submitter.submit

    async def explode(_):
        submitter.submit = sound
        raise ZeroDivisionError

    submitter.submit = explode
    first, second = await answers(driver.put([STEP, STEP], deadline=None))
    assert isinstance(first, UpstreamFault)
    assert second == {"type": "optim_step", "seq": 1}
    notes = [event for event in bench.recorder.events if isinstance(event, Note)]
    assert [type(note.error) for note in notes] == [ZeroDivisionError]


async def test_queue_states_are_shown_and_timed(driver, service, reply, bench) -> None:
    paused = {"type": "try_again", "queue_state": "paused_capacity", "queue_state_reason": "full"}
    script = [reply(200, paused), reply(200, {"type": "x"})]
    seen = []

    def result(_):
        seen.append(driver.queue_state)
        return script.pop(0)

    service.result = result
    (call,) = driver.put([STEP], deadline=None)
    await call.answer
    assert [state and state.reason for state in seen] == [None, "full"]
    assert driver.queue_state is None
    assert call.timeline.compute_s == pytest.approx(0.02)


async def test_draining_lets_nothing_linger(bench, service) -> None:
    upstream, _ = bench.upstream(service)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=bench.clock,
        hub=bench.hub,
    )
    slow = Limits(linger_s=600, idle_s=600)
    driver = LaneDriver("m", Lane(slow), tools, flavour=Flavour.JSON, on_gone=print)
    calls = driver.put([train(1)], deadline=None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert service.submits == []
    driver.drain()
    assert len(await answers(calls)) == 1
    assert len(service.submits) == 1


async def test_of_several_requests_the_one_held_back_is_shown(driver) -> None:
    """One that ends must not hide what another waits for."""
    active, full = QueueState("active", None), QueueState("paused_capacity", "full")
    driver._states = {1: active, 2: full, 3: QueueState("paused_rate_limit", "slow")}
    assert driver.queue_state is full
    del driver._states[2], driver._states[3]
    assert driver.queue_state is active


async def test_closing_fails_what_is_still_on_its_way_to_the_lane_too(driver) -> None:
    """A call of an SDK that waits for an earlier number is on no queue of the lane."""
    order = SdkOrder("m", 2, {}, b"{}")
    call = driver.make(Order("/api/v1/optim_step", {}, of_sdk=order))
    assert not driver.idle
    driver.close(ModelGone("gone"))
    for waiting in (call.answer, call.admitted):
        with pytest.raises(ModelGone):
            await waiting
    assert driver.idle


async def test_an_sdk_learns_when_its_call_is_admitted_and_gets_the_upstreams_answer(
    driver, service
) -> None:
    """Under its own number the request goes as it came; under another, only that differs."""
    body = b'{ "seq_id":1, "model_id":"m", "type" : "optim_step" }'
    order = SdkOrder("m", 1, {"type": msgspec.Raw(b'"optim_step"')}, body)
    works = [Order("/api/v1/optim_step", order.fields, of_sdk=order)] * 2
    first, second = driver.put(works, deadline=None)
    assert (await first.admitted).body == b'{"request_id":"0"}'
    answer = await second.answer
    assert isinstance(answer, Response)
    assert msgspec.json.decode(answer.body) == {"type": "optim_step", "seq": 2}


@pytest.mark.parametrize("known", [True, False])
async def test_a_promise_that_is_gone_is_so_with_its_model_or_without(
    driver, service, gone, known
) -> None:
    """What had not run when its model ended never will; with the model alive nobody can say."""
    service.result = lambda _: service.reply(410, {"detail": "Promise is gone"})
    service.known = known
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert isinstance(answer, OutcomeUnknown if known else ModelGone)
    assert len(gone) == (not known)


@pytest.mark.parametrize("known", [True, False])
async def test_a_lost_submit_goes_again_only_where_the_upstream_would_know_it(
    bench, service, gone, reply, known
) -> None:
    """Which it is asked first, under the number after; the lane passes over that one."""
    questions = iter(["q1", "q1" if known else "q2"])
    numbers = []

    def answer(request):
        if request.headers["content-type"] != PROTOBUF:
            return service(request)
        numbers.append(pb.ForwardBackwardRequest.FromString(request.body).seq_id)
        return reply(200, {"request_id": next(questions)})

    upstream, _ = bench.upstream(answer)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock, patience_s=20),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=bench.clock,
        hub=bench.hub,
    )
    driver = LaneDriver("m", Lane(LIMITS), tools, flavour=Flavour.PROTOBUF, on_gone=gone.append)
    service.instead = [Fault.RESET]
    first, second = await answers(driver.put([STEP, STEP], deadline=None))
    assert numbers == [2, 2]
    sent = [submit["seq_id"] for submit in service.submits]
    if known:
        assert (first["seq"], second["seq"]) == (1, 3)
        assert sent == [1, 1, 3]
    else:
        assert isinstance(first, OutcomeUnknown)
        assert second["seq"] == 1  # nobody knows whether it is used: a 409 would tell
        assert sent == [1, 1]
    service.instead = [Fault.RESET]
    (third,) = await answers(driver.put([STEP], deadline=None))
    assert isinstance(third, dict if known else OutcomeUnknown)
    assert numbers == [2, 2]


async def test_a_batch_that_lingers_leaves_by_the_new_limits(bench, service) -> None:
    upstream, _ = bench.upstream(service)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=bench.clock,
        hub=bench.hub,
    )
    slow = Limits(linger_s=600, idle_s=600)
    driver = LaneDriver("m", Lane(slow), tools, flavour=Flavour.JSON, on_gone=print)
    calls = driver.put([train(1)], deadline=None)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert service.submits == []
    driver.set_limits(LIMITS)
    assert len(await answers(calls)) == 1
