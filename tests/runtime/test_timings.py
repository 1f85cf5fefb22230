"""Where the time of every kind of call goes, to the last tick: an upstream that costs known time.

Time moves only while the upstream is at work, by sums of powers of two, so that floats are exact.
"""

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.core.timeline import Held, Part, Timeline
from tinkex_proxy.errors import ProxyError
from tinkex_proxy.runtime import lanes, sampling, trainer
from tinkex_proxy.runtime.account import Account, AccountSettings
from tinkex_proxy.runtime.futures import LARGE_BYTES, Poller
from tinkex_proxy.runtime.journal import Book, NoJournal
from tinkex_proxy.runtime.lanes import Tools
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.sampling import sample
from tinkex_proxy.runtime.submit import Submitter
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.runtime.upstream import Upstream
from tinkex_proxy.wire import plain
from tinkex_proxy.wire.datum import Flavour

SESSION, SUBMIT, PAUSED, COMPUTE, DOWNLOAD, JOURNAL = 1.0, 2.0, 4.0, 8.0, 0.5, 0.25
SEQUENCES = {"sequences": [{"tokens": [1], "logprobs": [-0.5], "stop_reason": "length"}]}


class Slow:
    """An upstream that takes its time for everything, and holds a request back once."""

    def __init__(self, clock, reply) -> None:
        self.clock, self.reply = clock, reply
        self.submits: list[tuple[str, dict[str, object]]] = []
        self.polls: dict[str, int] = {}
        self.instead: dict[str, list[object]] = {}
        self.compute: dict[int, float] = {}
        self.pauses = True

    def __call__(self, request):
        name = request.path.removeprefix("/api/v1/")
        body = msgspec.json.decode(request.body) if request.body else {}
        if name == "create_session":
            self.clock.advance(SESSION)
            return self.reply(200, {"session_id": "s"})
        if name == "create_sampling_session":
            self.clock.advance(SESSION)
            return self.reply(200, {"sampling_session_id": "x"})
        if name == "client/config":
            return self.reply(200, {})
        if name == "retrieve_future":
            return self.poll(request, body["request_id"])
        self.clock.advance(SUBMIT)
        if self.instead.get(name):
            return self.instead[name].pop(0)
        self.submits.append((name, body))
        return self.reply(200, {"request_id": str(len(self.submits) - 1)})

    def poll(self, request, request_id: str):
        self.polls[request_id] = self.polls.get(request_id, 0) + 1
        if self.pauses and self.polls[request_id] == 1:
            self.clock.advance(PAUSED)
            said = {"queue_state": "paused_capacity", "queue_state_reason": "no room"}
            return self.reply(408, {"type": "try_again", **said})
        self.clock.advance(self.compute.get(int(request_id), COMPUTE))
        if request.on_head is not None:
            request.on_head()
        self.clock.advance(DOWNLOAD)
        return self.reply(200, self.result(*self.submits[int(request_id)]))

    @staticmethod
    def result(name: str, body) -> dict[str, object]:
        if name == "create_model":
            return {"model_id": "m"}
        if name == "asample":
            return SEQUENCES
        if name == "save_weights_for_sampler":
            return {"path": None, "sampling_session_id": "live"}
        given = body.get("forward_backward_input")
        if given is None:
            return {"type": name}
        outputs = [{"logprobs": {"data": [-1.0]}} for _ in given["data"]]
        return {"loss_fn_outputs": outputs, "metrics": {}}


class SlowJournal(NoJournal):
    """Takes its time for what has to be written before something leaves."""

    on = True

    def __init__(self, clock) -> None:
        self.clock = clock

    async def commit(self, changes=()) -> None:
        self.clock.advance(JOURNAL)


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From what size on a result counts as large; every one, unless a test says otherwise."""

    def count(least: int) -> None:
        for module in (lanes, sampling):
            monkeypatch.setattr(module, "LARGE_BYTES", least)

    count(0)
    return count


@pytest.fixture
def slow(bench, reply) -> Slow:
    return Slow(bench.clock, reply)


@pytest.fixture
def account_with(bench, slow):
    def make(book: Book | None = None) -> Account:
        upstream: Upstream = bench.upstream(slow)[0]
        tools = Tools(
            submitter=Submitter(upstream, bench.clock, patience_s=600),
            poller=Poller(upstream, bench.clock),
            knows=partial(knows_model, upstream, bench.clock),
            tasks=bench.tasks,
            clock=bench.clock,
            hub=bench.hub,
            book=book or Book(),
        )
        limits = Limits(linger_s=0.0, idle_s=0.0, max_datums=2, max_requests=1)
        settings = AccountSettings(limits=limits, flavour=Flavour.JSON)
        made = Account("k", upstream, tools, settings)
        made.session._start_beating = lambda _: None  # a heart that beats moves the clock
        return made

    return make


@pytest.fixture
async def account(account_with, bench):
    """An account with a model."""
    made = account_with()
    await made.ready()
    made.adopt({}, "m", "s")
    yield made
    await bench.tasks.cancel_all()


def call(*tokens: int) -> plain.TrainingCall:
    data = [{"tokens": [token], "targets": [1]} for token in tokens]
    return plain.decode_training(msgspec.json.encode({"model_id": "m", "data": data}))


def ticket_of(account: Account) -> Ticket:
    return Ticket(timeline=Timeline(account.tools.clock.now()))


def ended(account: Account, ticket: Ticket) -> dict[str, float]:
    """The parts of a call that is over now, and sum to its whole."""
    line, now = ticket.timeline, account.tools.clock.now()
    line.end(now)
    assert sum(line.parts().values()) == line.whole_s == now - line.began
    return {part.value: seconds for part, seconds in line.parts().items() if seconds}


ALONE = {"upload": SUBMIT, "upstream-queue": PAUSED, "compute": COMPUTE, "download": DOWNLOAD}


async def test_a_lone_calls_time_is_the_upstreams_alone(account) -> None:
    ticket = ticket_of(account)
    await trainer.train(account, call(1), ticket)
    assert ended(account, ticket) == ALONE
    assert ticket.timeline.held == Held("paused_capacity", "no room")
    assert ticket.timeline.overhead_s == 0.0


async def test_a_result_that_cannot_be_large_comes_with_its_head(account, large) -> None:
    """To tell the two apart would cost every small call more than there is to be seen."""
    large(LARGE_BYTES)
    together = {"upload": SUBMIT, "upstream-queue": PAUSED, "compute": COMPUTE + DOWNLOAD}
    ticket = ticket_of(account)
    await trainer.train(account, call(1), ticket)
    assert ended(account, ticket) == together


@pytest.mark.parametrize(
    ("wanted", "told_apart"),
    [
        ({"max_tokens": 4095}, False),
        ({"max_tokens": 4096}, True),
        ({"max_tokens": 64}, False),
        ({}, True),
    ],
)
async def test_a_sample_is_as_large_as_its_tokens_may_be(
    account, large, wanted, told_apart
) -> None:
    large(LARGE_BYTES)
    body = {"base_model": "b", "prompt": [1], "sampling_params": wanted}
    ticket = ticket_of(account)
    await sample(account, plain.decode_sample(msgspec.json.encode(body)), ticket)
    assert ended(account, ticket).get("download") == (DOWNLOAD if told_apart else None)


async def test_an_order_is_split_the_same_way(account) -> None:
    ticket = ticket_of(account)
    step = plain.OptimStep(model_id="m", adam_params=plain.AdamParams(learning_rate=1))
    await trainer.optim_step(account, step, ticket)
    assert ended(account, ticket) == ALONE


async def test_what_waits_on_the_lane_has_that_in_its_queue(account, slow) -> None:
    slow.pauses = False
    tickets = [ticket_of(account), ticket_of(account)]
    await asyncio.gather(*(trainer.train(account, call(n), t) for n, t in enumerate(tickets)))
    first, second = (t.timeline.parts() for t in tickets)
    assert (first[Part.QUEUE], second[Part.QUEUE]) == (0.0, SUBMIT)
    for ticket in tickets:
        assert sum(ticket.timeline.parts().values()) == ticket.timeline.whole_s


async def test_lingering_counts_from_when_the_wire_was_free(account, bench) -> None:
    driver = account.model("m").driver
    driver.lane.set_limits(Limits(linger_s=4.0, idle_s=2.0, max_datums=9))
    ticket = ticket_of(account)
    training = asyncio.create_task(trainer.train(account, call(1), ticket))
    while not bench.clock.pending:
        await asyncio.sleep(0)
    bench.clock.advance(2.0)
    await training
    assert ended(account, ticket) == {"linger": 2.0, **ALONE}


async def test_leave_that_is_waited_for_is_queue_and_not_linger(account, bench) -> None:
    pace = account.upstream.pace
    driver = account.model("m").driver
    driver.lane.set_limits(Limits(linger_s=4.0, idle_s=2.0, max_datums=9))
    pace.heard(bench.clock.now(), 429, wait_s=16.0)
    ticket = ticket_of(account)
    training = asyncio.create_task(trainer.train(account, call(1), ticket))
    for seconds in (2.0, 14.0):
        for _ in range(20):
            await asyncio.sleep(0)
        bench.clock.advance(seconds)
    await training
    assert ended(account, ticket) == {"linger": 2.0, "queue": 14.0, **ALONE}


async def test_a_call_in_pieces_is_split_along_its_critical_path(account, slow) -> None:
    """Of pieces that end in another order than they came, the last to end counts."""
    slow.pauses = False
    slow.compute = {0: 1.0, 1: 1.0, 2: 64.0}
    ticket = ticket_of(account)
    await trainer.train(account, call(1, 2, 3, 4, 5), ticket)
    assert len(slow.submits) == 3
    parts = ended(account, ticket)
    last_queued = SUBMIT * 2  # two submits went before the third
    assert parts["queue"] >= last_queued
    assert (parts["upload"], parts["download"]) == (SUBMIT, DOWNLOAD)
    assert parts["compute"] >= 64.0


async def test_the_calls_of_a_batch_call_are_one_path(account, slow) -> None:
    slow.pauses = False
    ticket = ticket_of(account)
    calls = [trainer.train(account, call(n), ticket, item=n) for n in range(3)]
    await asyncio.gather(*calls)
    parts = ended(account, ticket)
    assert (parts["queue"], parts["upload"]) == (SUBMIT * 2, SUBMIT)


async def test_what_is_asked_first_and_sent_again_is_upload(account, slow, reply) -> None:
    slow.pauses = False
    slow.instead["forward_backward"] = [Fault.CONNECT, reply(503)]
    account.learned = False
    account._learn_at = 0.0
    account.session.current = None
    ticket = ticket_of(account)
    slept = sum(account.tools.clock.slept)
    with pytest.raises(ProxyError):  # the JSON generation knows no repetitions
        await trainer.train(account, call(1), ticket)
    waited = sum(account.tools.clock.slept) - slept
    assert ended(account, ticket) == {"upload": pytest.approx(SESSION + 2 * SUBMIT + waited)}


async def test_a_poll_that_fails_is_compute_until_the_end(account, slow, reply) -> None:
    slow.pauses = False
    slow.result = lambda *_: {"error": "it diverged", "category": "user"}
    ticket = ticket_of(account)
    with pytest.raises(ProxyError, match="diverged"):
        await trainer.train(account, call(1), ticket)
    parts = ended(account, ticket)
    assert parts == {"upload": SUBMIT, "compute": COMPUTE + DOWNLOAD}


async def test_the_journal_has_a_part_of_its_own(account_with, bench) -> None:
    journal = SlowJournal(bench.clock)
    account = account_with(Book("me", journal))
    ticket = ticket_of(account)
    made = await trainer.create_model(account, plain.CreateModel(base_model="b"), ticket)
    parts = ended(account, ticket)
    before_and_after = 2 * JOURNAL  # its number before it is made, its name before it is told
    computed = {"upstream-queue": PAUSED, "compute": COMPUTE + DOWNLOAD}  # that is small
    assert parts == {"journal": before_and_after, "upload": SESSION + SUBMIT, **computed}
    assert made["model_id"] == "m"
    ticket = ticket_of(account)
    await trainer.train(account, call(1), ticket)
    assert ended(account, ticket) == {"journal": JOURNAL, **ALONE}
    await bench.tasks.cancel_all()


async def test_a_sample_from_a_base_model_has_its_session_in_upload(account) -> None:
    ticket = ticket_of(account)
    await sample(account, plain.decode_sample(b'{"base_model":"b","prompt":[1]}'), ticket)
    assert ended(account, ticket) == {**ALONE, "upload": SESSION + SUBMIT}


async def test_a_sample_from_a_model_has_the_save_in_its_parts(account) -> None:
    wanted = plain.decode_sample(b'{"model_id":"m","prompt":[1]}')
    ticket = ticket_of(account)
    await sample(account, wanted, ticket)
    assert ended(account, ticket) == {part: 2 * seconds for part, seconds in ALONE.items()}
    ticket = ticket_of(account)
    await sample(account, wanted, ticket)
    assert ended(account, ticket) == ALONE
    assert list(ticket.model_ids) == ["m"]


async def test_a_sample_that_joins_a_save_has_what_it_waited_for(account, bench) -> None:
    wanted = plain.decode_sample(b'{"model_id":"m","prompt":[1]}')
    first, second = ticket_of(account), Ticket()
    driver = account.model("m").driver
    release = asyncio.Event()
    submit = account.tools.submitter.submit

    async def held(ask):
        await release.wait()
        return await submit(ask)

    account.tools.submitter.submit = held
    earlier = asyncio.create_task(sample(account, wanted, first))
    while driver.lane.on_wire is None:
        await asyncio.sleep(0)
    bench.clock.advance(32.0)
    second = ticket_of(account)
    later = asyncio.create_task(sample(account, wanted, second))
    await asyncio.sleep(0)
    release.set()
    await asyncio.gather(earlier, later)
    for ticket in (first, second):
        assert sum(ticket.timeline.parts().values()) == ticket.timeline.whole_s
    first_upload, second_upload = (t.timeline.parts()[Part.UPLOAD] for t in (first, second))
    assert first_upload - second_upload >= 32.0 - SUBMIT
    assert second.timeline.parts()[Part.UPSTREAM_QUEUE] >= PAUSED


async def test_what_is_taken_back_has_waited_in_its_queue(account, bench) -> None:
    account.upstream.pace.heard(bench.clock.now(), 429, wait_s=512.0)
    ticket = ticket_of(account)
    training = asyncio.create_task(trainer.train(account, call(1), ticket))
    for _ in range(20):
        await asyncio.sleep(0)
    bench.clock.advance(16.0)
    assert ticket.withdraw()
    with pytest.raises(ProxyError):
        await training
    assert ended(account, ticket) == {"queue": 16.0}


async def test_the_model_that_ends_fails_what_waits_in_its_queue(account, bench) -> None:
    account.upstream.pace.heard(bench.clock.now(), 429, wait_s=512.0)
    ticket = ticket_of(account)
    training = asyncio.create_task(trainer.train(account, call(1), ticket))
    for _ in range(20):
        await asyncio.sleep(0)
    bench.clock.advance(16.0)
    account.model("m").end("gone")
    with pytest.raises(ProxyError):
        await training
    assert ended(account, ticket) == {"queue": 16.0}
