"""The futures that SDKs are promised: what a poll is told, and in which form."""

import asyncio
import time
from types import SimpleNamespace

from tests.api.sdk_calls import message, output, result, send
from tinkex_proxy.api import sdk_futures
from tinkex_proxy.api.sdk_futures import SdkFutures, Timed
from tinkex_proxy.core.timeline import Timeline
from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.hub import Hub
from tinkex_proxy.runtime.journal import NoJournal
from tinkex_proxy.runtime.ledger import Ledger, Retention
from tinkex_proxy.runtime.records import AskedRecord, CallRecord
from tinkex_proxy.runtime.tasks import Tasks
from tinkex_proxy.runtime.whose import Whose


async def test_who_waits_for_an_earlier_number_is_told_which(proxy, monkeypatch) -> None:
    monkeypatch.setattr(sdk_futures, "MAX_HOLD_S", 0.01)
    model_id = await proxy.create()
    sent = await send(proxy, message(model_id, 2, 1))
    asked = {"request_id": sent.json()["request_id"]}
    answer = await proxy.post("/api/v1/retrieve_future", asked)
    assert answer.status_code == 408
    told = answer.json()
    assert (told["type"], told["request_id"]) == ("try_again", asked["request_id"])
    assert told["queue_state"] == "active"
    assert told["queue_state_reason"] == "waits for the call with seq_id 1"


async def test_a_result_comes_in_the_form_that_is_asked_for(proxy) -> None:
    model_id = await proxy.create()
    sent = await send(proxy, message(model_id, 1, 1, 2))
    packed = await result(proxy, sent)
    text = await result(proxy, sent, accept="application/json")
    assert text.headers["content-type"] == "application/json"
    told = text.json()
    assert told["loss_fn_output_type"] == output(packed).loss_fn_output_type.rpartition(":")[2]
    assert [len(one["logprobs"]["data"]) for one in told["loss_fn_outputs"]] == [8, 8]
    assert told["metrics"] == dict(output(packed).metrics)


async def test_a_large_result_is_announced_by_its_size_where_that_is_allowed(
    proxy, monkeypatch
) -> None:
    monkeypatch.setattr(sdk_futures, "METADATA_BYTES", 10)
    model_id = await proxy.create()
    sent = await send(proxy, message(model_id, 1, 1))
    announced = (await result(proxy, sent, metadata=True)).json()
    whole = await result(proxy, sent)
    assert announced == {
        "status": "complete_metadata",
        "response_payload_size": len(whole.content),
    }


async def test_futures_are_known_to_their_own_key_alone(proxy) -> None:
    model_id = await proxy.create()
    sent = await send(proxy, message(model_id, 1, 1))
    await result(proxy, sent)
    for request_id in (sent.json()["request_id"], "tinkex-0000"):
        asked = {"request_id": request_id}
        other = await proxy.post("/api/v1/retrieve_future", asked, x_api_key="tml-other")
        assert other.status_code == 410
        assert request_id in other.json()["detail"]


async def test_the_model_dies_with_its_lane_and_who_waits_is_told(proxy) -> None:
    model_id = await proxy.create()
    waits = await send(proxy, message(model_id, 2, 2))
    proxy.proxy.services.accounts.of(None).models[model_id].end("It is gone.")
    told = (await result(proxy, waits)).json()
    assert told == {"error": "It is gone.", "category": "unknown"}
    refused = await send(proxy, message(model_id, 1, 1))
    assert (refused.status_code, refused.json()) == (410, {"detail": "It is gone."})


async def test_a_poll_that_is_no_poll_of_ours_goes_up(proxy) -> None:
    """Also one that cannot be read: what it means is the upstream's to say."""
    for body in (b"?", b"{}", b'{"request_id":"17"}'):
        answer = await proxy.post("/api/v1/retrieve_future", body)
        assert answer.status_code in {400, 404, 422}
        assert "tinkex" not in answer.text


async def test_while_everything_is_ended_a_held_poll_is_told_to_come_again(
    proxy, monkeypatch
) -> None:
    """The end of the process cancels what runs; a poll must not become a fault by that."""
    model_id = await proxy.create()
    sent = await send(proxy, message(model_id, 2, 1))

    async def ended(_self, awaited, _receive, _seconds) -> None:
        awaited.cancel()
        await asyncio.wait([awaited])

    monkeypatch.setattr(sdk_futures.SdkFutures, "wait_with", ended)
    answer = await proxy.post("/api/v1/retrieve_future", sent.json())
    assert answer.status_code == 408


async def test_at_the_very_end_held_polls_are_let_go(proxy) -> None:
    """Cut off, they would look like a fault; told to come again, they find who runs next."""
    model_id = await proxy.create()
    sent = await send(proxy, message(model_id, 2, 1))
    polls = [asyncio.ensure_future(proxy.post("/api/v1/retrieve_future", sent.json()))]
    polls += [asyncio.ensure_future(proxy.post("/api/v1/retrieve_future", sent.json()))]
    done, _ = await asyncio.wait(polls, timeout=0)
    assert not done
    proxy.proxy.release()
    assert [(await poll).status_code for poll in polls] == [408, 408]


async def test_a_call_that_an_earlier_run_took_on_is_made_again_under_its_old_id() -> None:
    """The parts of it that were sent are known by that; under another it would run beside them."""
    tasks, clock = Tasks(lambda name, error: None), ManualClock()
    ledger = Ledger(clock, tasks, Retention(), journal=NoJournal(), wall_clock=time.monotonic)
    ledger.restore([CallRecord("me", "tinkex-old", 1, "key", b"d")])
    answer = asyncio.get_running_loop().create_future()
    call = SimpleNamespace(answer=answer, admitted=None, timeline=Timeline(0.0))
    callers = SimpleNamespace(leaving=list, give_back=lambda *_: None)
    model = SimpleNamespace(callers=callers, model_id="m")
    timed = Timed("sdk_forward", Timeline(0.0), Whose("tinkex-old", "me"))
    hub = Hub([], on_broken=lambda _: None)
    entry = SdkFutures(ledger, asyncio.Event(), clock=clock, hub=hub).promise(
        SimpleNamespace(key_id="me", serve=lambda _: None),
        lambda _: SimpleNamespace(model=model, call=call, timed=timed, caller="", seq_id=1),
        key="key",
        digest=b"d",
        asked=AskedRecord("sdk", "/", {}, {}, b""),
    )
    assert (entry.id, entry.earlier) == ("tinkex-old", True)
    ledger.end_all()
    await asyncio.wait([entry.task])
