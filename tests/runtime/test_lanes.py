"""A lane at work against a scripted upstream: what goes onto the wire, and who gets what."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import pytest

from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.lane import Lane
from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.core.retry import DISBELIEVED
from tinkex_proxy.core.timeline import Part
from tinkex_proxy.errors import (
    JournalUnavailable,
    ModelGone,
    OutcomeUnknown,
    UpstreamConflict,
    UpstreamFault,
    UpstreamRefused,
)
from tinkex_proxy.runtime.admit import MAX_BEHIND
from tinkex_proxy.runtime.events import Note
from tinkex_proxy.runtime.futures import Poller, QueueState
from tinkex_proxy.runtime.journal import Book, Journal, OnFailure, StoredJournal
from tinkex_proxy.runtime.lanes import LaneDriver, Tools
from tinkex_proxy.runtime.ledger import Entry
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.records import BatchRecord, MemberRecord, PromiseRecord, read_records
from tinkex_proxy.runtime.store import Kind, MemoryStore, StoreError
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
def driver_with(bench, service, gone) -> Callable[..., LaneDriver]:
    def make(
        journal: Journal | None = None,
        *,
        next_seq: int = 1,
        flavour: Flavour = Flavour.PROTOBUF,
        patience_s: float = 20,
    ) -> LaneDriver:
        upstream, _ = bench.upstream(service)
        tools = Tools(
            submitter=Submitter(upstream, bench.clock, patience_s=patience_s),
            poller=Poller(upstream, bench.clock),
            knows=partial(knows_model, upstream, bench.clock),
            tasks=bench.tasks,
            clock=bench.clock,
            hub=bench.hub,
            book=Book() if journal is None else Book("me", journal),
        )
        lane = Lane(LIMITS, next_seq=next_seq)
        return LaneDriver("m", lane, tools, flavour=flavour, on_gone=gone.append)

    return make


@pytest.fixture
def driver(driver_with) -> LaneDriver:
    return driver_with(flavour=Flavour.JSON)


async def answers(calls) -> list[object]:
    async with asyncio.timeout(2):  # what never comes is a failure, not a hang
        return await asyncio.gather(*(call.answer for call in calls), return_exceptions=True)


async def test_calls_share_a_request_and_get_their_own_part(driver, service) -> None:
    calls = driver.put([train(1), train(2, 3), train(4)], deadline=None)
    shares = await answers(calls)
    assert [s["path"] for s in service.submits] == ["forward_backward"]
    assert [[r["logprobs"].values() for r in share.output.records] for share in shares] == [
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


async def test_a_large_answer_is_not_written_to_all_of_its_callers_in_one_turn(
    driver, service, monkeypatch
) -> None:
    monkeypatch.setattr("tinkex_proxy.runtime.lanes.TURN_BYTES", 1)
    calls = driver.put([train(1), train(2), train(3)], deadline=None)
    await calls[0].answer
    assert [call.answer.done() for call in calls] == [True, False, False]
    assert len(await answers(calls)) == 3
    assert len(service.submits) == 1


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
    assert call.timeline.parts()[Part.COMPUTE] == pytest.approx(0.02)


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


# What follows is about a lane with a journal, and about one that goes on from an earlier run's.


class Library:
    """A store that outlasts runs, and the journals of runs on it."""

    def __init__(self, bench) -> None:
        self.bench = bench
        self.store = MemoryStore()
        self.journals: list[StoredJournal] = []

    def journal(self, on_failure: OnFailure = OnFailure.WARN) -> StoredJournal:
        """A new run's."""
        bench = self.bench
        self.journals.append(
            StoredJournal(
                self.store,
                tasks=bench.tasks,
                clock=bench.clock,
                hub=bench.hub,
                on_failure=on_failure,
            )
        )
        return self.journals[-1]

    @property
    def names(self) -> list[str]:
        """What is there, by kind and name; of a request without its identity, which is random."""
        keys = ((kind, key) for kind, key in self.store.records)
        return sorted(
            f"{kind.name} {key.rpartition('/')[0] if kind is Kind.BATCH else key}"
            for kind, key in keys
        )

    def batches(self) -> list[BatchRecord]:
        owners, _ = read_records(self.store.load())
        return owners["me"].batches if owners else []


@pytest.fixture
async def library(bench):
    made = Library(bench)
    yield made
    for journal in made.journals:
        await journal.close()
    await bench.tasks.cancel_all()
    assert bench.crashes == []


async def settle(turns: int = 50) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(holds: Callable[[], object]) -> None:
    """Take turns of the event loop until it, and the journal's thread, are there."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0)


def entry(name: str) -> Entry:
    return Entry(name, "me", 1, f"key of {name}", b"")


TAKEN = PromiseRecord("application/json", b'{"request_id":"0"}')


def sent(
    seq_id: int,
    *members: tuple[str, str],
    promise: PromiseRecord | None = None,
    repeatable: bool = True,
) -> Page:
    """The page of an `optim_step` that an earlier run had under way."""
    body = msgspec.json.encode({"type": "optim_step", "seq_id": seq_id, "run": "earlier"})
    record = BatchRecord(
        owner="me",
        model_id="m",
        seq_id=seq_id,
        members=tuple(MemberRecord(name, part, 1) for name, part in members),
        path="/api/v1/optim_step",
        content_type="application/json",
        accept="application/json",
        identity="the same",
        repeatable=repeatable,
        body=b"" if promise else body,
        promise=promise,
    )
    return Page(record, [name for name, _ in members])


def trained(seq_id: int, members: Sequence[tuple[str, int]], **more: object) -> Page:
    """The page of a shared `forward_backward` that an earlier run had under way."""
    page = sent(seq_id, **more)
    data = [{"n": n} for _, n in members]
    body = {"seq_id": seq_id, "forward_backward_input": {"data": data}}
    record = msgspec.structs.replace(
        page.record,
        path="/api/v1/forward_backward",
        members=tuple(MemberRecord(name, "0.0", 1) for name, _ in members),
        body=msgspec.json.encode(body),
    )
    return Page(record, [name for name, _ in members])


async def test_a_request_is_in_the_journal_before_it_is_sent(driver_with, service, library) -> None:
    driver = driver_with(library.journal())
    seen: list[tuple[list[str], BatchRecord]] = []
    reply = service.reply

    def look(request: Request) -> Response:
        (batch,) = library.batches()
        assert batch.body == request.body
        assert batch.promise is None
        seen.append((library.names, batch))
        return reply(200, {"request_id": "0"})

    service.submits.append({"path": "optim_step", "seq_id": 1})
    submitter = driver._tools.submitter
    submitter._upstream._transport._answer = lambda r: (
        look(r) if r.path.endswith("optim_step") else service(r)
    )
    (answer,) = await answers(driver.put([STEP], deadline=None, origin=entry("c")))
    assert answer == {"type": "optim_step", "seq": 1}
    ((names, batch),) = seen
    assert names == ["BATCH me/m/1", "CALL me/c"]
    assert batch.members == (MemberRecord("c", "0.0", 0),)


async def test_a_page_stays_until_the_calls_answer_is_kept(driver_with, library) -> None:
    """Until then a later run needs it to give the same answer without sending anything."""
    driver, origin = driver_with(journal := library.journal()), entry("c")
    await answers(driver.put([STEP], deadline=None, origin=origin))
    await journal.commit()
    assert library.names == ["BATCH me/m/1", "CALL me/c", "LANE me/m"]
    (batch,) = library.batches()
    assert (batch.body, batch.promise) == (b"", TAKEN)
    journal.note(*origin.turned())
    await journal.commit()
    assert library.names == ["CALL me/c", "LANE me/m"]


async def test_a_request_that_nobody_can_come_for_goes_with_its_result(
    driver_with, library
) -> None:
    driver = driver_with(journal := library.journal())
    await answers(driver.put([STEP], deadline=None))
    await journal.commit()
    assert library.names == ["LANE me/m"]


async def test_a_refused_request_leaves_no_page_and_its_halves_have_their_own(
    driver_with, service, library, reply
) -> None:
    driver = driver_with(journal := library.journal())
    service.instead = [reply(400, {"detail": "bad"}), reply(400, {"detail": "bad"})]
    origins = [entry("a"), entry("b")]
    calls = [driver.make(train(1), origin=origin) for origin in origins]
    driver.enqueue(calls)
    refused, answered = await answers(calls)
    assert isinstance(refused, UpstreamRefused)
    assert (answered.batch_id, answered.requests) == ("m#1", 1)
    await journal.commit()
    (batch,) = library.batches()
    assert [member.call_id for member in batch.members] == ["b"]


async def test_nothing_is_sent_that_could_not_be_told_after_a_crash(
    driver_with, service, library
) -> None:
    """With `refuse`; the lane goes on when there is room, and nothing is left of what was not."""
    driver = driver_with(journal := library.journal(OnFailure.REFUSE))
    library.store.refusing = StoreError("full")
    refused = await answers(driver.put([train(1), train(2), STEP], deadline=None))
    assert [type(error) for error in refused] == [JournalUnavailable] * 3
    assert service.submits == []
    assert (driver.lane.next_seq, driver.lane.on_wire) == (1, None)
    library.store.refusing = None
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert answer == {"type": "optim_step", "seq": 1}
    await journal.commit()
    assert library.names == ["LANE me/m"]


async def test_training_goes_on_without_a_journal_where_that_is_wanted(
    driver_with, service, library
) -> None:
    driver = driver_with(library.journal(OnFailure.WARN))
    library.store.refusing = StoreError("full")
    (answer,) = await answers(driver.put([STEP], deadline=None, origin=entry("c")))
    assert answer == {"type": "optim_step", "seq": 1}
    assert library.names == []


async def test_a_bug_while_sending_leaves_no_page(driver_with, library, bench) -> None:
    driver = driver_with(journal := library.journal())

    async def explode(_):
        raise ZeroDivisionError

    driver._tools.submitter.submit = explode
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert isinstance(answer, UpstreamFault)
    await journal.commit()
    assert library.names == []


async def test_with_its_model_a_lane_goes_out_of_the_journal(driver_with, library) -> None:
    driver = driver_with(journal := library.journal())
    await answers(driver.put([STEP], deadline=None))
    driver.close(ModelGone("over"))
    await journal.commit()
    assert library.names == []


async def test_what_was_admitted_is_polled_for_and_answers_who_comes_for_it(
    driver_with, service, library
) -> None:
    driver = driver_with(journal := library.journal(), next_seq=2)
    service.submits.append({"path": "optim_step", "seq_id": 1})
    driver.resume([sent(1, ("c", "0.0"), promise=TAKEN)], keep_s=60)
    assert (driver.lane.owed, driver.lane.on_wire) == (1, None)
    origin = entry("c")
    early = driver.put([STEP], deadline=None, origin=origin)
    assert await answers(early) == [{"type": "optim_step", "seq": 1}]
    assert len(service.submits) == 1
    assert driver.lane.owed == 0
    assert origin.pages[0].gone is False
    journal.note(*origin.turned())
    assert origin.pages == []
    assert len(driver.flights) == 0


async def test_who_comes_when_it_has_landed_gets_the_same_answer(driver_with, service) -> None:
    driver = driver_with(next_seq=2)
    service.submits.append({"path": "optim_step", "seq_id": 1})
    driver.resume([sent(1, ("c", "0.0"), promise=TAKEN)], keep_s=60)
    await settle()
    late = driver.put([STEP], deadline=None, origin=entry("c"))
    assert await answers(late) == [{"type": "optim_step", "seq": 1}]
    assert driver.idle


async def test_what_may_have_been_sent_goes_again_byte_for_byte_before_all_else(
    driver_with, service
) -> None:
    driver = driver_with(next_seq=5)
    page = sent(5, ("c", "0.0"))
    body = page.record.body
    bodies: list[bytes] = []
    transport = driver._tools.submitter._upstream._transport
    transport._answer = lambda r: bodies.append(r.body) or service(r)
    driver.resume([page], keep_s=60)
    assert driver.lane.on_wire.seq_id == 5
    later = driver.put([STEP], deadline=None)
    mine = driver.put([STEP], deadline=None, origin=entry("c"))
    assert await answers([*mine, *later]) == [
        {"type": "optim_step", "seq": 5},
        {"type": "optim_step", "seq": 6},
    ]
    assert bodies[0] == body
    assert [submit["seq_id"] for submit in service.submits] == [5, 6]
    assert page.record.body == b""


async def test_an_upstream_that_is_away_is_waited_for(driver_with, service, reply) -> None:
    driver = driver_with(next_seq=5, patience_s=1000)
    service.instead = [Fault.CONNECT, Fault.RESET, reply(503), *[Fault.CONNECT] * 6]
    driver.resume([sent(5, ("c", "0.0"))], keep_s=60)
    (answer,) = await answers(driver.put([STEP], deadline=None, origin=entry("c")))
    assert answer == {"type": "optim_step", "seq": 5}
    assert {submit["run"] for submit in service.submits} == {"earlier"}


async def test_parts_of_one_request_are_given_to_their_own_calls(driver_with, service) -> None:
    """Some come, some do not; each gets its own outputs."""
    driver = driver_with(next_seq=5)
    driver.resume([trained(5, [("a", 1), ("b", 2), ("c", 3)])], keep_s=60)
    calls = [driver.make(train(n), origin=entry(name)) for name, n in (("c", 3), ("a", 1))]
    driver.enqueue(calls)
    shares = await answers(calls)
    assert [share.output.records[0]["logprobs"].values() for share in shares] == [[3], [1]]
    assert [(share.index, share.requests, share.batch_id) for share in shares] == [
        (2, 3, "m#5"),
        (0, 3, "m#5"),
    ]
    assert len(service.submits) == 1
    assert driver.flights.carries("b")


async def test_an_sdk_whose_call_was_sent_learns_that_it_is_admitted(driver_with, service) -> None:
    driver = driver_with(next_seq=5)
    driver.resume([sent(5, ("c", "0.0"))], keep_s=60)
    order = SdkOrder("m", 5, {}, b"{}")
    call = driver.make(Order("/api/v1/optim_step", {}, of_sdk=order), origin=entry("c"))
    assert (await call.admitted).body == b'{"request_id":"0"}'
    assert msgspec.json.decode((await call.answer).body) == {"type": "optim_step", "seq": 5}


async def test_what_the_upstream_refuses_goes_by_the_lane_first_and_each_by_itself(
    driver_with, service, reply
) -> None:
    """Nothing of it ran: its number is free, and those aboard are in front of all others."""
    driver = driver_with(next_seq=5)
    page = trained(5, [("a", 1), ("b", 2), ("c", 3)])
    refusals = DISBELIEVED + 1
    service.instead = [reply(400, {"detail": "one of them is bad"})] * refusals
    driver.resume([page], keep_s=60)
    later = driver.put([STEP], deadline=None)
    aboard = [driver.make(train(n), origin=entry(name)) for name, n in (("b", 2), ("a", 1))]
    driver.enqueue(aboard)
    *shares, step = await answers([*aboard, *later])
    assert [(share.batch_id, share.requests) for share in shares] == [("m#6", 1), ("m#5", 1)]
    assert step == {"type": "optim_step", "seq": 7}
    wire = [submit.get("forward_backward_input", {}).get("data") for submit in service.submits]
    assert wire == [[{"n": 1}, {"n": 2}, {"n": 3}]] * refusals + [[{"n": 1}], [{"n": 2}], None]
    assert page.gone
    (share,) = await answers(driver.put([train(3)], deadline=None, origin=entry("c")))
    assert share.batch_id == "m#8"


async def test_what_cannot_be_repeated_has_an_unknown_outcome(driver_with, service) -> None:
    """Where the upstream would run it again; the lane goes on behind it."""
    driver = driver_with(next_seq=5, flavour=Flavour.JSON)
    driver.resume([sent(5, ("c", "0.0"), repeatable=False)], keep_s=60)
    mine = driver.put([STEP], deadline=None, origin=entry("c"))
    other = driver.put([STEP], deadline=None)
    unknown, answer = await answers([*mine, *other])
    assert isinstance(unknown, OutcomeUnknown)
    assert answer == {"type": "optim_step", "seq": 5}
    assert len(service.submits) == 1


async def test_a_model_that_died_meanwhile_is_gone(driver_with, service, reply, gone) -> None:
    driver = driver_with(next_seq=5)
    service.instead = [reply(404, {"detail": "Model not found"})] * (DISBELIEVED + 1)
    service.known = False
    driver.resume([sent(5, ("c", "0.0"))], keep_s=60)
    (answer,) = await answers(driver.put([STEP], deadline=None, origin=entry("c")))
    assert isinstance(answer, ModelGone)
    assert "Model not found" in gone[0]


async def test_a_result_that_is_an_error_is_that_of_all_whose_parts_it_was(
    driver_with, service, reply
) -> None:
    driver = driver_with(next_seq=5)
    service.result = lambda _: reply(200, {"error": "NaN", "category": "user"})
    driver.resume([sent(5, ("a", "0.0"), ("b", "0.0"))], keep_s=60)
    early = driver.put([STEP], deadline=None, origin=entry("a"))
    got = await answers(early)
    got += await answers(driver.put([STEP], deadline=None, origin=entry("b")))
    assert [(error.detail, error.category) for error in got] == [("NaN", "user")] * 2
    assert got[0] is not got[1]
    assert driver.lane.owed == 0


async def test_an_answer_of_an_earlier_request_that_makes_no_sense_reaches_nobody(
    driver_with, service, reply
) -> None:
    driver = driver_with(next_seq=5)
    service.result = lambda _: reply(200, {"loss_fn_outputs": [], "metrics": {}})
    driver.resume([trained(5, [("a", 1)])], keep_s=60)
    (answer,) = await answers(driver.put([train(1)], deadline=None, origin=entry("a")))
    assert isinstance(answer, UpstreamFault)


async def test_nobody_is_waited_for_longer_than_answers_are_kept(
    driver_with, service, library, bench
) -> None:
    driver = driver_with(journal := library.journal(), next_seq=6)
    service.submits += [{"path": "optim_step", "seq_id": 5}]
    page = sent(5, ("came", "0.0"), ("never", "0.0"), promise=TAKEN)
    driver.resume([page], keep_s=60)
    origin = entry("came")
    call = driver.make(STEP, origin=origin)
    await settle()
    assert len(driver.flights) == 1
    bench.clock.advance(60)
    assert len(driver.flights) == 0
    assert not page.gone
    journal.note(*origin.turned())
    assert page.gone
    call.answer.cancel()
    late = driver.put([STEP], deadline=None, origin=entry("never"))
    await answers(late)
    assert len(service.submits) == 2


async def test_a_journal_that_was_behind_is_caught_up_with(driver_with, service, reply) -> None:
    """It lost its last moments with the machine's power: the next numbers are used."""
    driver = driver_with(next_seq=5)
    driver.resume([], keep_s=60)
    service.instead = [reply(409, {"detail": "reused"})] * 3
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert answer == {"type": "optim_step", "seq": 8}
    service.instead = [reply(409, {"detail": "reused"})]
    (conflict,) = await answers(driver.put([STEP], deadline=None))
    assert isinstance(conflict, UpstreamConflict), "it has been caught up with"


async def test_a_lane_does_not_try_numbers_for_ever(driver_with, service, reply) -> None:
    driver = driver_with(next_seq=5)
    driver.resume([], keep_s=60)
    service.instead = [reply(409, {"detail": "reused"})] * (2 * MAX_BEHIND)
    (conflict,) = await answers(driver.put([STEP], deadline=None))
    assert isinstance(conflict, UpstreamConflict)
    assert len(service.submits) == MAX_BEHIND + 2


async def test_a_name_that_is_taken_is_no_number_that_is_used(driver_with, service, reply) -> None:
    """A 409 to a save may be about its name: one more number is tried, not a hundred."""
    driver = driver_with(next_seq=5)
    driver.resume([], keep_s=60)
    service.instead = [reply(409, {"detail": "name taken"})] * 5
    save = Order("/api/v1/save_weights", {"type": "save_weights", "path": "x"})
    (conflict,) = await answers(driver.put([save], deadline=None))
    assert isinstance(conflict, UpstreamConflict)
    assert len(service.submits) == 2


async def test_a_run_that_is_ended_while_it_takes_up_leaves_the_pages(
    driver_with, library, bench
) -> None:
    driver = driver_with(library.journal(), next_seq=5)
    pages = [sent(5, ("c", "0.0"))]
    held = asyncio.get_running_loop().create_future()

    async def hold(_):
        await held

    driver._tools.submitter.submit = hold
    driver.resume(pages, keep_s=60)
    await settle()
    await library.journals[0].close()
    await bench.tasks.cancel_all()
    assert not pages[0].gone
    assert driver.lane.on_wire is not None


async def test_an_unknown_outcome_is_that_of_who_comes_late_too(driver_with, service) -> None:
    """Its caller repeats the call after the restart: it must not run again."""
    driver = driver_with(next_seq=5, flavour=Flavour.JSON)
    driver.resume([sent(5, ("c", "0.0"), repeatable=False)], keep_s=60)
    await settle()
    (late,) = await answers(driver.put([STEP], deadline=None, origin=entry("c")))
    assert isinstance(late, OutcomeUnknown)
    assert service.submits == []


async def test_an_upstream_that_stays_away_leaves_an_unknown_outcome_for_who_comes_late(
    driver_with, service
) -> None:
    driver = driver_with(next_seq=5)
    service.instead = [Fault.CONNECT] * 100
    driver.resume([sent(5, ("c", "0.0"))], keep_s=3600)
    await settle(3000)
    service.instead = []
    sent_before = len(service.submits)
    (late,) = await answers(driver.put([STEP], deadline=None, origin=entry("c")))
    assert isinstance(late, OutcomeUnknown), late
    assert len(service.submits) == sent_before
