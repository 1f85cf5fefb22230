"""What a caller can ask for, against a small scripted upstream of the JSON generation."""

import asyncio
import dataclasses
from functools import partial
from types import SimpleNamespace

import msgspec
import pytest

from tinkex_proxy.core.circuit import Force
from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.outcome import Fault, Outcome
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.errors import (
    CircuitOpen,
    DeadlineExceeded,
    JournalUnavailable,
    ModelNotFound,
    OutcomeUnknown,
    ProxyError,
    UpstreamFault,
    UpstreamRefused,
    UpstreamUnreachable,
)
from tinkex_proxy.runtime import trainer
from tinkex_proxy.runtime.account import Account, AccountSettings
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import BatchLeft, CallCut, Trained
from tinkex_proxy.runtime.futures import Poller
from tinkex_proxy.runtime.journal import Book
from tinkex_proxy.runtime.lanes import Tools
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.store import Kind
from tinkex_proxy.runtime.submit import Submitter
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.wire import plain
from tinkex_proxy.wire.datum import Flavour


class Service:
    """Answers submits with futures and futures with results made from the submit."""

    def __init__(self, reply) -> None:
        self.reply = reply
        self.submits: list[tuple[str, dict[str, object]]] = []
        self.instead: dict[str, list[object]] = {}
        self.sessions = 0

    def __call__(self, request):
        name = request.path.removeprefix("/api/v1/")
        body = msgspec.json.decode(request.body) if request.body else {}
        if self.instead.get(name):
            return self.instead[name].pop(0)
        if name == "create_session":
            self.sessions += 1
            return self.reply(200, {"session_id": f"s{self.sessions}"})
        if name == "client/config":
            return self.reply(200, {})
        if name == "retrieve_future":
            return self.reply(200, self.result(*self.submits[int(body["request_id"])]))
        self.submits.append((name, body))
        return self.reply(200, {"request_id": str(len(self.submits) - 1)})

    def result(self, name: str, body) -> dict[str, object]:
        if name == "create_model":
            return {"model_id": f"{body['session_id']}:train:{body['model_seq_id']}"}
        data = (body.get("forward_backward_input") or body.get("forward_input") or {}).get("data")
        if data is None:
            return {"type": name, "echo": {k: v for k, v in body.items() if k != "type"}}
        outputs = [
            {"logprobs": {"data": [-float(d["model_input"]["chunks"][0]["tokens"][0])]}}
            for d in data
        ]
        return {"loss_fn_outputs": outputs, "metrics": {"loss:sum": 7.0, "clock:unique": 1.0}}


@pytest.fixture
def service(reply) -> Service:
    return Service(reply)


@pytest.fixture
async def account(bench, service):
    upstream, _ = bench.upstream(service, threshold=3)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock, patience_s=5),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=ManualClock(),
        hub=bench.hub,
    )
    limits = Limits(linger_s=0.0, idle_s=0.0, max_datums=3)
    made = Account("k", upstream, tools, AccountSettings(limits=limits, flavour=Flavour.JSON))
    yield made
    await bench.tasks.cancel_all()


async def created(account, **fields) -> str:
    body = plain.CreateModel(base_model="b", **fields)
    return (await trainer.create_model(account, body, Ticket()))["model_id"]


def call(model_id: str, *tokens: int) -> plain.TrainingCall:
    data = [{"tokens": [token], "targets": [1]} for token in tokens]
    body = {"model_id": model_id, "data": data}
    return plain.decode_training(msgspec.json.encode(body))


async def test_a_model_is_created_as_asked_and_gets_a_lane(account, service) -> None:
    model_id = await created(account, rank=4, seed=9, metadata={"a": "b"})
    (name, body) = service.submits[0]
    assert (name, body["session_id"], body["model_seq_id"]) == ("create_model", "s1", 0)
    assert body["lora_config"]["rank"] == 4
    assert (body["lora_config"]["seed"], body["user_metadata"]) == (9, {"a": "b"})
    assert account.model(model_id).driver.lane.next_seq == 1
    assert await created(account) == "s1:train:1"
    assert "seed" not in service.submits[1][1]["lora_config"]


@pytest.mark.parametrize("error", [None, JournalUnavailable("full")])
async def test_a_model_is_in_the_journal_before_its_caller_is_told(account, noted, error) -> None:
    """Only there is it known after a crash; if it cannot be, its caller has to know it still."""
    account.tools = dataclasses.replace(account.tools, book=Book("k", noted))
    adopt = account.adopt

    def adopted(*args, **more):
        noted.commits.clear()
        noted.refusing = error
        return adopt(*args, **more)

    account.adopt = adopted
    model_id = await created(account)
    assert noted.commits == [()]
    assert [change.key for change in noted.changes if change.kind is Kind.MODEL] == [
        f"k/{model_id}"
    ]


@pytest.mark.parametrize("status", [404, 410])
async def test_a_session_that_ended_unnoticed_is_replaced_once(
    account, service, reply, status
) -> None:
    service.instead["create_model"] = [reply(status, {"detail": "Session not found"})]
    service.instead["session_heartbeat"] = [reply(status)]
    assert await created(account) == "s2:train:0"
    service.instead["create_model"] = [reply(status, {"detail": "gone"})] * 2
    service.instead["session_heartbeat"] = [reply(status)] * 2
    with pytest.raises(UpstreamRefused, match="gone"):
        await created(account)


async def test_a_base_model_that_is_not_there_costs_no_session(account, service, reply) -> None:
    """Its 404 is not about the session, whose heartbeat says so; other models live in it."""
    model_id = await created(account)
    service.instead["create_model"] = [reply(404, {"detail": "no such base model"})]
    with pytest.raises(UpstreamRefused, match="no such base model"):
        await created(account)
    assert account.session.current == "s1"
    assert account.model(model_id).gone is None


async def test_a_model_without_a_name_is_a_fault(account, service) -> None:
    service.result = lambda *_: {}
    with pytest.raises(UpstreamFault, match="without a model_id"):
        await created(account)


async def test_a_model_named_in_the_submits_answer_needs_no_future(account, service, reply) -> None:
    service.instead["create_model"] = [reply(200, {"model_id": "direct"})]
    assert await created(account) == "direct"


async def test_a_lone_call_has_the_upstreams_metrics_as_its_own(account) -> None:
    model_id = await created(account)
    answer = await trainer.train(account, call(model_id, 5), Ticket())
    assert answer.loss == 5
    assert answer.metrics == answer.batch.metrics == {"loss:sum": 7.0, "clock:unique": 1.0}
    assert (answer.batch.requests, answer.batch.index) == (1, 0)


async def test_a_shared_call_has_only_what_is_its_own(account) -> None:
    model_id = await created(account)
    answers = await asyncio.gather(
        *(trainer.train(account, call(model_id, n), Ticket()) for n in (5, 6))
    )
    assert [a.loss for a in answers] == [5, 6]
    assert [a.metrics for a in answers] == [{"loss:sum": 5}, {"loss:sum": 6}]
    assert all(a.batch.metrics["clock:unique"] == 1.0 for a in answers)
    assert [a.batch.index for a in answers] == [0, 1]


async def test_coalescing_off_means_a_request_of_its_own(account, service) -> None:
    model_id = await created(account)
    tickets = [Ticket(coalesce=False), Ticket()]
    await asyncio.gather(*(trainer.train(account, call(model_id, 5), t) for t in tickets))
    assert [name for name, _ in service.submits].count("forward_backward") == 2


async def test_a_large_call_goes_in_parts_and_comes_back_whole(account, service) -> None:
    model_id = await created(account)
    answer = await trainer.train(account, call(model_id, *range(1, 8)), Ticket())
    sizes = [len(b["forward_backward_input"]["data"]) for n, b in service.submits[1:]]
    assert sizes == [3, 3, 1]
    assert [r["logprobs"].values() for r in answer.loss_fn_outputs] == [[-n] for n in range(1, 8)]
    assert (answer.loss, answer.batch.datums) == (28, 7)
    assert answer.metrics["loss:sum"] == 21.0


async def test_a_part_that_fails_says_which_parts_count(account, service, reply) -> None:
    model_id = await created(account)
    results = iter([{"error": "NaN", "category": "server"}, None, None])
    original = service.result
    service.result = lambda *a: next(results) or original(*a)
    with pytest.raises(ProxyError, match="part 1 failed and 2 succeeded: their gradients count"):
        await trainer.train(account, call(model_id, *range(1, 8)), Ticket())


async def test_forward_goes_where_the_generation_has_it(account, service) -> None:
    model_id = await created(account)
    await trainer.train(account, call(model_id, 5), Ticket(), forward_only=True)
    assert service.submits[-1][0] == "forward"


async def test_orders_carry_their_fields_in_order(account, service) -> None:
    model_id = await created(account)
    step = plain.OptimStep(model_id=model_id)
    answer = await trainer.optim_step(account, step, Ticket())
    assert answer["echo"]["adam_params"]["learning_rate"] == 1e-4
    assert answer["echo"]["seq_id"] == 1
    assert "type" not in answer
    save = plain.SaveWeights(model_id=model_id, path="ck")
    answer = await trainer.save_weights(account, save, Ticket(), for_sampler=False)
    assert (answer["echo"]["path"], answer["echo"]["seq_id"]) == ("ck", 2)
    await trainer.save_weights(account, save, Ticket(), for_sampler=True)
    load = plain.LoadWeights(model_id=model_id, path="tinker://x", optimizer=True)
    answer = await trainer.load_weights(account, load, Ticket())
    assert answer["echo"]["optimizer"] is True
    names = [name for name, _ in service.submits[1:]]
    assert names == ["optim_step", "save_weights", "save_weights_for_sampler", "load_weights"]


async def test_a_deleted_model_is_unloaded_and_forgotten(account, service, reply) -> None:
    model_id = await created(account)
    told = await trainer.unload(account, model_id, Ticket())
    assert told == {"model_id": model_id, "deleted": True, "unloaded_upstream": True}
    with pytest.raises(ModelNotFound):
        account.model(model_id)
    service.instead["unload_model"] = [reply(405, {"detail": "no such call"})]
    told = await trainer.unload(account, await created(account), Ticket())
    assert told["unloaded_upstream"] is False


async def test_a_model_that_could_not_be_unloaded_stays(account, service) -> None:
    model_id = await created(account)
    service.instead["unload_model"] = [Fault.RESET]
    with pytest.raises(ProxyError, match="may have run"):
        await trainer.unload(account, model_id, Ticket())
    assert account.model(model_id)


async def test_where_repetitions_run_again_no_second_model_is_made_in_doubt(
    account, service
) -> None:
    """It would take one of the upstream's few places until its session ends."""
    service.instead["create_model"] = [Fault.RESET]
    with pytest.raises(OutcomeUnknown):
        await created(account)
    assert service.submits == []
    assert await created(account)


async def test_a_model_is_asked_for_again_where_its_number_is_recognised(
    bench, service, reply
) -> None:
    upstream, transport = bench.upstream(service)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=ManualClock(),
        hub=bench.hub,
    )
    settings = AccountSettings(limits=Limits(), flavour=Flavour.PROTOBUF)
    account = Account("k", upstream, tools, settings)
    service.instead["create_model"] = [Fault.RESET, reply(503)]
    assert await created(account)
    asked = [r for r in transport.requests if r.path.endswith("create_model")]
    assert len(asked) == 3
    assert len({(r.body, r.headers["x-idempotency-key"]) for r in asked}) == 1
    await bench.tasks.cancel_all()


async def test_an_open_breaker_takes_no_new_work(account, service, reply) -> None:
    model_id = await created(account)
    for _ in range(3):
        permit = account.upstream.breaker.acquire()
        account.upstream.breaker.settle(permit, Outcome.FAILURE, "503")
    with pytest.raises(CircuitOpen):
        await trainer.train(account, call(model_id, 1), Ticket())
    with pytest.raises(CircuitOpen):
        await trainer.optim_step(account, plain.OptimStep(model_id=model_id), Ticket())
    assert account.model(model_id).driver.lane.depth == 0


async def test_an_open_breaker_costs_no_model_its_number_and_the_journal_no_record(
    account, noted
) -> None:
    """Nothing is sent, so there is nothing that an earlier run could have asked for."""
    await created(account)
    account.tools = dataclasses.replace(account.tools, book=Book("k", noted))
    account.upstream.breaker.force(Force.OPEN)
    with pytest.raises(CircuitOpen):
        await created(account)
    assert (noted.commits, noted.changes, account.creations) == ([], [], {})
    account.upstream.breaker.reset()
    assert await created(account) == "s1:train:1"


async def test_a_ticket_takes_back_all_or_nothing(account) -> None:
    model = account.model(await created(account))
    ticket = Ticket()
    assert ticket.withdraw() is False
    work = [trainer.Order("/api/v1/optim_step", {}), trainer.Order("/api/v1/optim_step", {})]
    calls = ticket.put(model, work)
    assert ticket.withdraw() is True
    assert all(c.answer.cancelled() for c in calls)
    late = Ticket()
    calls = late.put(model, work)
    await calls[0].answer
    assert late.withdraw() is False
    await calls[1].answer


async def test_of_several_calls_a_ticket_takes_back_those_that_have_not_left(account) -> None:
    """And puts nothing more: an item of the batch that was still on its way comes too late."""
    model = account.model(await created(account))
    ticket, work = Ticket(), [trainer.Order("/api/v1/optim_step", {})]
    (gone,) = ticket.put(model, work)
    await gone.answer
    (waiting,) = ticket.put(model, work)
    with ticket.unsent():
        assert ticket.withdraw() is False
    assert waiting.answer.cancelled()
    with pytest.raises(DeadlineExceeded, match="nothing of it was sent"):
        ticket.put(model, work)


async def test_what_is_on_its_way_and_has_sent_nothing_can_be_taken_back(account) -> None:
    ticket = Ticket()
    with ticket.unsent():
        assert ticket.withdraw() is True
    sent = Ticket()
    with sent.unsent():
        pass
    assert sent.withdraw() is False


async def test_training_before_the_upstream_is_known_asks_it_first(account, service) -> None:
    """A proxy whose first contact failed learns limits and flavour before it writes a datum."""
    model = account.adopt({}, "m", "s1")
    assert not account.learned
    await trainer.train(account, call("m", 5), Ticket())
    assert account.learned
    assert model.driver.batches == 1


@pytest.mark.parametrize(
    ("other", "again"),
    [({}, False), (OutcomeUnknown("?"), False), (CircuitOpen("shut"), True)],
    ids=["ran", "may have run", "did not run"],
)
async def test_a_call_in_pieces_may_be_made_again_only_if_no_piece_has_run(other, again) -> None:
    """A refused connection is worth a repetition, but not of a piece that counts."""
    loop = asyncio.get_running_loop()
    pieces = [
        SimpleNamespace(answer=loop.create_future(), timeline=Timeline(0.0)) for _ in range(2)
    ]
    pieces[0].answer.set_exception(UpstreamUnreachable("away"))
    if isinstance(other, ProxyError):
        pieces[1].answer.set_exception(other)
    else:
        pieces[1].answer.set_result(other)
    with pytest.raises(UpstreamUnreachable) as caught:
        await trainer._all(pieces, Ticket(), ManualClock(0.0))
    assert caught.value.retryable is again


async def test_what_was_trained_and_cut_is_told(bench, account) -> None:
    """A `forward` trains nothing, and its parts are parts all the same."""
    model_id = await created(account)
    await trainer.train(account, call(model_id, 5, 6), Ticket())
    await trainer.train(account, call(model_id, 1, 2, 3, 4), Ticket(), forward_only=True)
    told = [e for e in bench.recorder.events if isinstance(e, Trained | CallCut)]
    assert told == [Trained(model_id, 11, datums=2), CallCut(2)]
    (first, *_) = [e for e in bench.recorder.events if isinstance(e, BatchLeft)]
    assert first.size_bytes > 0
