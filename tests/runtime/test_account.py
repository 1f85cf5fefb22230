import asyncio
from functools import partial

import msgspec
import pytest

from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.errors import ModelGone, ModelNotFound, UpstreamFault
from tinkex_proxy.runtime import account as account_module
from tinkex_proxy.runtime.account import Account, AccountSettings
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.events import ModelsLost, Note
from tinkex_proxy.runtime.futures import Poller
from tinkex_proxy.runtime.lanes import Tools
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.submit import Submitter
from tinkex_proxy.runtime.work import Order
from tinkex_proxy.wire.datum import Flavour


class Service:
    """A whole small upstream, answering by path."""

    def __init__(self, reply) -> None:
        self.reply = reply
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.answers: dict[str, object] = {
            "create_session": lambda: {"session_id": f"s{self.count('create_session')}"},
            "client/config": lambda: {"fwdbwd_max_chunk_len": 5},
            "create_sampling_session": lambda: {
                "sampling_session_id": f"x{self.count('create_sampling_session')}"
            },
        }
        self.flavour_statuses = [415]

    def count(self, name: str) -> int:
        return sum(1 for path, _ in self.asked if path == name)

    def __call__(self, request):
        name = request.path.removeprefix("/api/v1/")
        try:
            body = msgspec.json.decode(request.body)
        except msgspec.DecodeError:
            body = {}
        self.asked.append((name, body))
        if name == "forward_backward":
            return self.reply(self.flavour_statuses.pop(0))
        answer = self.answers.get(name, dict)()
        return answer if hasattr(answer, "status") else self.reply(200, answer)


@pytest.fixture
def service(reply) -> Service:
    return Service(reply)


@pytest.fixture
async def account(bench, service):
    upstream, _ = bench.upstream(service)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=ManualClock(),  # heartbeats stay asleep
        hub=bench.hub,
    )
    made = Account("k", upstream, tools, AccountSettings(limits=Limits()))
    yield made
    made.close()
    await bench.tasks.cancel_all()


async def test_ready_learns_limits_and_flavour_once(account, service) -> None:
    assert not account.learned
    sessions = await asyncio.gather(*(account.ready() for _ in range(5)))
    assert set(sessions) == {"s1"}
    assert (service.count("client/config"), service.count("forward_backward")) == (1, 1)
    assert (account.limits.max_datums, account.flavour) == (5, Flavour.PROTOBUF)


async def test_a_flavour_learnt_late_reaches_the_models_there_are(account, service) -> None:
    service.flavour_statuses = [500, 422, *[500] * 5]  # a 500 is believed when it comes always
    await account.ready()
    assert not account.learned
    model = account.adopt({}, "m", "s1")
    assert model.driver.flavour is Flavour.PROTOBUF
    await account.ready()
    assert account.learned
    assert model.driver.flavour is account.flavour is Flavour.JSON


async def test_a_configured_flavour_is_not_asked_for(bench, service) -> None:
    upstream, _ = bench.upstream(service)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=ManualClock(),
        hub=bench.hub,
    )
    settings = AccountSettings(limits=Limits(), flavour=Flavour.JSON)
    account = Account("k", upstream, tools, settings)
    await account.ready()
    assert (account.flavour, service.count("forward_backward")) == (Flavour.JSON, 0)
    await bench.tasks.cancel_all()


async def test_models_are_found_or_explained(account) -> None:
    model = account.adopt({}, "m", "s1")
    assert account.model("m") is model
    assert not account.idle
    with pytest.raises(ModelNotFound, match="'other'") as caught:
        account.model("other")
    assert caught.value.pointer == "/model_id"
    model.driver._on_gone("the upstream forgot it")
    with pytest.raises(ModelGone, match="forgot"):
        account.model("m")
    assert account.idle


async def test_an_account_is_not_idle_while_a_call_runs_on_it(account) -> None:
    """A model that is being made is not there yet; dropped meanwhile, it would be lost."""
    release = asyncio.Event()
    call = asyncio.create_task(release.wait())
    account.serve(call)
    assert not account.idle
    release.set()
    await call
    await asyncio.sleep(0)
    assert account.idle


async def test_models_die_with_their_session_and_with_no_other(account, bench) -> None:
    await account.ready()
    first, other = account.adopt({}, "m", "s1"), account.adopt({}, "n", "s0")
    sampler = await account.sampler("base_model", "b")
    account.session.lost("s1", "its heartbeat was answered 410")
    assert "410" in first.gone
    assert other.gone is None
    assert ModelsLost("s1", 1, "its heartbeat was answered 410", "k") in bench.recorder.events
    assert (await account.sampler("base_model", "b")) is not sampler


async def test_each_session_is_told_of_once(account, bench) -> None:
    await account.ready()
    await account.ready()
    account.session.lost("s1", "it ended")
    await account.ready()
    notes = [event for event in bench.recorder.events if isinstance(event, Note)]
    assert [note.message for note in notes] == ["upstream session opened"] * 2
    assert notes[0].fields == {"session_id": "s1", "key_id": "k"}


async def test_samplers_are_made_once_for_each_name(account, service) -> None:
    one = await account.sampler("base_model", "b")
    assert await account.sampler("base_model", "b") is one
    assert await account.sampler("model_path", "b") is not one
    assert [
        body["sampling_session_seq_id"]
        for name, body in service.asked
        if name == "create_sampling_session"
    ] == [0, 1]
    account.forget(one)
    assert await account.sampler("base_model", "b") is not one


async def test_samplers_wanted_at_once_are_made_once(account, service, monkeypatch) -> None:
    """And one that takes its time delays no other; nothing is left of who waited."""
    ask, release = account.upstream.ask, asyncio.Event()

    async def stalling(wanted):
        if b'"base_model":"slow"' in wanted.body:
            await release.wait()
        return await ask(wanted)

    monkeypatch.setattr(account.upstream, "ask", stalling)
    slow = [asyncio.create_task(account.sampler("base_model", "slow")) for _ in range(20)]
    assert await account.sampler("base_model", "quick")
    release.set()
    assert len(set(map(id, await asyncio.gather(*slow)))) == 1
    assert service.count("create_sampling_session") == 2
    slow.clear()
    assert len(account._making) == 0


async def test_a_sampler_without_a_name_is_a_fault(account, service) -> None:
    service.answers["create_sampling_session"] = dict
    with pytest.raises(UpstreamFault, match="sampling_session_id"):
        await account.sampler("base_model", "b")


async def test_the_dead_are_not_remembered_for_ever(account, monkeypatch) -> None:
    monkeypatch.setattr(account_module, "MAX_DEAD", 2)
    for n in range(5):
        account.adopt({}, f"m{n}", "s").end("over")
    account.adopt({}, "alive", "s")
    assert sorted(account.models) == ["alive", "m3", "m4"]


async def test_draining_reaches_every_lane(account) -> None:
    model = account.adopt({}, "m", "s1")
    account.drain()
    assert model.driver.lane._draining
    await asyncio.sleep(0)


async def test_an_sdks_model_gets_its_lane_when_the_first_call_comes(account) -> None:
    account.expect({"model_id": "m", "rank": 8}, "m", "s9")
    assert account.models == {}
    model = account.model("m")
    assert (model.facts["rank"], model.session_id, model.of_sdk) == (8, "s9", True)
    assert account.found("m") is model
    assert account.found("other") is None


async def test_models_of_sdks_that_are_gone_are_forgotten(account) -> None:
    """An SDK never says goodbye: no heartbeat and no call for a quarter of an hour says it."""
    ours = account.adopt({}, "ours", "s1")
    account.adopt({}, "silent", "s8", of_sdk=True)
    account.adopt({}, "beating", "s9", of_sdk=True)
    waiting = account.adopt({}, "waiting", "s8", of_sdk=True)
    waiting.make(Order("/api/v1/optim_step", {}))
    account.tools.clock.advance(account_module.SDK_SILENCE_S + 1)
    account.beat("s9")
    account.sweep()
    assert set(account.models) == {"ours", "beating", "waiting"}
    assert ours.gone is None


async def test_what_is_remembered_by_name_is_bounded_and_the_newest_stays(
    account, monkeypatch
) -> None:
    monkeypatch.setattr(account_module, "MAX_NAMES", 2)
    for name in ("a", "b", "c"):
        account.expect({}, name, "s")
        account.beat(name)
    assert account.found("a") is None
    assert account.found("c") is not None
    account.beat("b")
    account.beat("d")
    assert list(account._beats) == ["b", "d"]


async def test_limits_that_could_not_be_read_are_asked_for_again(bench, service) -> None:
    """And reach the lanes that there are by then."""
    upstream, _ = bench.upstream(service)
    settings = AccountSettings(limits=Limits(), flavour=Flavour.JSON)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=bench.clock,
        hub=bench.hub,
    )
    account = Account("k", upstream, tools, settings)
    good = service.answers["client/config"]
    service.answers["client/config"] = lambda: service.reply(503)
    await account.learn()
    assert (account.learned, account.limits.max_datums) == (False, 1024)
    model = account.adopt({}, "m", "s", of_sdk=True)
    service.answers["client/config"] = good
    await account.learn()
    assert service.count("client/config") == 3
    bench.clock.advance(account_module.LEARN_AGAIN_S)
    await account.learn()
    await account.learn()
    assert (account.learned, account.limits.max_datums) == (True, 5)
    assert model.driver.lane._limits.max_datums == 5
    assert service.count("client/config") == 4


async def test_an_account_whose_sdk_is_alive_is_not_idle(account) -> None:
    """It may be about to train what it makes, and its heartbeats must go on going up."""
    assert account.idle
    account.beat("s9")
    assert not account.idle
    account.tools.clock.advance(account_module.SDK_SILENCE_S + 1)
    assert account.idle
    account.expect({}, "m", "s9")
    assert not account.idle


async def test_other_limits_hold_for_models_there_are_and_never_above_the_upstreams(
    account,
) -> None:
    await account.ready()
    model = account.adopt({}, "m", "s1")
    account.reconfigure(AccountSettings(limits=Limits(max_datums=3), heartbeat_interval_s=7))
    assert model.driver.lane._limits.max_datums == 3
    account.reconfigure(AccountSettings(limits=Limits(max_datums=100), coalesce=False))
    assert (account.limits.max_datums, account.settings.coalesce) == (5, False)
    assert model.driver.lane._limits.max_datums == 5


async def test_other_limits_before_the_upstreams_are_known_are_lowered_when_they_are(
    account,
) -> None:
    account.reconfigure(AccountSettings(limits=Limits(max_datums=100, linger_s=1)))
    assert account.limits.max_datums == 100
    await account.ready()
    assert (account.limits.max_datums, account.limits.linger_s) == (5, 1)
