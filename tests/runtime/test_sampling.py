"""Sampling against a small scripted upstream: which weights, which session, how often saved."""

import asyncio
from functools import partial

import msgspec
import pytest

from tinkex_proxy.core.coalesce import Limits
from tinkex_proxy.errors import ModelNotFound, UpstreamFault, UpstreamRefused
from tinkex_proxy.runtime import trainer
from tinkex_proxy.runtime.account import Account, AccountSettings
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.futures import Poller
from tinkex_proxy.runtime.lanes import Tools
from tinkex_proxy.runtime.query import knows_model
from tinkex_proxy.runtime.sampling import sample
from tinkex_proxy.runtime.submit import Submitter
from tinkex_proxy.runtime.trainer import Ticket
from tinkex_proxy.wire import plain
from tinkex_proxy.wire.datum import Flavour

SEQUENCES = {"sequences": [{"tokens": [1], "logprobs": [-0.5], "stop_reason": "length"}]}


class Service:
    """Samples at once; saves for sampling under session names of its own."""

    def __init__(self, reply) -> None:
        self.reply = reply
        self.asked: list[tuple[str, dict[str, object]]] = []
        self.instead: dict[str, list[object]] = {}
        self.saved: dict[str, object] = {"path": None, "sampling_session_id": "live"}

    def names(self) -> list[str]:
        quiet = {"create_session", "client/config", "retrieve_future"}
        return [name for name, _ in self.asked if name not in quiet]

    def __call__(self, request):
        name = request.path.removeprefix("/api/v1/")
        body = msgspec.json.decode(request.body) if request.body else {}
        self.asked.append((name, body))
        if self.instead.get(name):
            return self.instead[name].pop(0)
        answers: dict[str, object] = {
            "create_session": {"session_id": "s"},
            "create_sampling_session": {"sampling_session_id": f"x{len(self.names())}"},
            "save_weights_for_sampler": {"request_id": "save"},
            "asample": {"request_id": "sample"},
            "optim_step": {"request_id": "step"},
        }
        if name == "retrieve_future":
            save = body["request_id"] == "save"
            answers[name] = self.saved if save else SEQUENCES
        return self.reply(200, answers.get(name, {}))


@pytest.fixture
def service(reply) -> Service:
    return Service(reply)


@pytest.fixture
async def account(bench, service):
    upstream, _ = bench.upstream(service)
    tools = Tools(
        submitter=Submitter(upstream, bench.clock, patience_s=5),
        poller=Poller(upstream, bench.clock),
        knows=partial(knows_model, upstream, bench.clock),
        tasks=bench.tasks,
        clock=ManualClock(),
        hub=bench.hub,
    )
    settings = AccountSettings(limits=Limits(idle_s=0), flavour=Flavour.JSON)
    made = Account("k", upstream, tools, settings)
    made.adopt({}, "m", "s")
    yield made
    await bench.tasks.cancel_all()


def wanted(**of: str) -> plain.Sample:
    body = {"prompt": [1, 2], "sampling_params": {"max_tokens": 3}, **of}
    return plain.decode_sample(msgspec.json.encode(body))


async def test_a_base_model_or_a_path_has_a_session_that_is_reused(account, service) -> None:
    for _ in range(2):
        answer = await sample(account, wanted(base_model="b"), Ticket())
        assert answer.sequences[0].tokens == [1]
    await sample(account, wanted(model_path="tinker://x"), Ticket())
    asked = [body for name, body in service.asked if name == "asample"]
    assert service.names().count("create_sampling_session") == 2
    assert [body["seq_id"] for body in asked] == [0, 1, 0]
    assert asked[0]["prompt"]["chunks"][0]["tokens"] == [1, 2]
    assert asked[0]["sampling_params"]["max_tokens"] == 3


async def test_a_models_weights_are_saved_once_for_as_long_as_they_stand(account, service) -> None:
    """Callers at once share one save; a step makes a new one."""
    await asyncio.gather(*(sample(account, wanted(model_id="m"), Ticket()) for _ in range(5)))
    assert service.names().count("save_weights_for_sampler") == 1
    await trainer.optim_step(account, plain.OptimStep(model_id="m"), Ticket())
    await sample(account, wanted(model_id="m"), Ticket())
    saves = [body for name, body in service.asked if name == "save_weights_for_sampler"]
    assert [(b["seq_id"], b["sampling_session_seq_id"]) for b in saves] == [(1, 0), (3, 1)]
    assert {b["sampling_session_id"] for n, b in service.asked if n == "asample"} == {"live"}


async def test_a_sample_sees_every_step_before_it(account, service) -> None:
    """Submitted together, in order: the save stands behind the step."""
    step = trainer.optim_step(account, plain.OptimStep(model_id="m"), Ticket())
    await asyncio.gather(step, sample(account, wanted(model_id="m"), Ticket()))
    assert service.names() == ["optim_step", "save_weights_for_sampler", "asample"]


async def test_an_upstream_that_saves_under_a_path_is_sampled_from_there(account, service) -> None:
    service.saved = {"path": "tinker://m/1", "sampling_session_id": None}
    await sample(account, wanted(model_id="m"), Ticket())
    (made,) = [body for name, body in service.asked if name == "create_sampling_session"]
    assert made["model_path"] == "tinker://m/1"


async def test_a_save_that_names_nothing_is_a_fault_and_is_tried_anew(account, service) -> None:
    service.saved = {}
    with pytest.raises(UpstreamFault, match="neither a session nor a path"):
        await sample(account, wanted(model_id="m"), Ticket())
    service.saved = {"sampling_session_id": "live"}
    assert (await sample(account, wanted(model_id="m"), Ticket())).sequences


@pytest.mark.parametrize("of", [{"base_model": "b"}, {"model_id": "m"}])
async def test_a_session_the_upstream_forgot_is_made_anew_once(account, service, reply, of) -> None:
    gone = reply(404, {"detail": "Sampling session not found"})
    service.instead["asample"] = [gone]
    assert (await sample(account, wanted(**of), Ticket())).sequences
    service.instead["asample"] = [gone, gone]
    with pytest.raises(UpstreamRefused, match="Sampling session not found"):
        await sample(account, wanted(**of), Ticket())


async def test_a_refused_sample_is_told(account, service, reply) -> None:
    service.instead["asample"] = [reply(400, {"detail": "max_tokens is currently required"})]
    with pytest.raises(UpstreamRefused, match="max_tokens"):
        await sample(account, wanted(base_model="b"), Ticket())


async def test_an_unknown_model_is_told(account) -> None:
    with pytest.raises(ModelNotFound):
        await sample(account, wanted(model_id="other"), Ticket())


async def test_an_answer_at_once_needs_no_future(account, service, reply) -> None:
    service.instead["asample"] = [reply(200, SEQUENCES)]
    ticket = Ticket()
    assert (await sample(account, wanted(base_model="b"), ticket)).sequences
    assert "retrieve_future" not in [name for name, _ in service.asked]
