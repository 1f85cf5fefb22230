"""An upstream is asked whether it knows repetitions again, once, and without a gradient."""

import asyncio

import pytest

from tinkex_proxy.core.outcome import Fault, Outcome
from tinkex_proxy.runtime.recognition import Assumed, Found, Recognition
from tinkex_proxy.runtime.submit import Submitter
from tinkex_proxy.wire import tinker_pb2 as pb
from tinkex_proxy.wire.datum import Flavour


async def asked(bench, answers, recognition: Recognition | None = None):
    upstream, transport = bench.upstream(answers)
    submitter = Submitter(upstream, bench.clock, patience_s=5)
    recognition = recognition or Recognition()
    found = await recognition.ask(submitter, "m", 7)
    return found, recognition, transport.requests


def promise(reply, name: str):
    return reply(200, {"request_id": name})


async def test_it_is_asked_with_a_forward_that_comes_twice_under_one_number(bench, reply) -> None:
    _, _, requests = await asked(bench, [promise(reply, "1"), promise(reply, "1")])
    first, second = requests
    assert first.body == second.body
    assert first.headers["x-idempotency-key"] == second.headers["x-idempotency-key"]
    question = pb.ForwardBackwardRequest.FromString(first.body)
    assert (question.model_id, question.seq_id, question.forward_only) == ("m", 7, True)
    assert len(question.data) == 1


@pytest.mark.parametrize(("second", "known"), [("1", True), ("2", False)])
async def test_the_same_future_twice_says_yes_and_two_futures_no(
    bench, reply, second, known
) -> None:
    found, recognition, _ = await asked(bench, [promise(reply, "1"), promise(reply, second)])
    assert found == Found(known, used=True)
    assert recognition.known(Flavour.PROTOBUF) is known


async def test_an_upstream_that_only_knows_the_number_again_gives_no_future(bench, reply) -> None:
    found, _, _ = await asked(bench, [promise(reply, "1"), reply(409)])
    assert found == Found(known=False, used=True)


async def test_an_upstream_without_futures_cannot_tell(bench, reply) -> None:
    found, recognition, _ = await asked(bench, [reply(200, {}), reply(200, {})])
    assert found == Found(None, used=True)
    assert recognition.known(Flavour.PROTOBUF) is None


async def test_a_lost_answer_to_the_question_is_asked_for_again(bench, reply) -> None:
    answers = [Fault.RESET, promise(reply, "1"), reply(503), promise(reply, "1")]
    found, _, requests = await asked(bench, answers)
    assert found == Found(known=True, used=True)
    assert len({request.body for request in requests}) == 1


async def test_a_refusal_may_be_a_gateways_and_is_believed_when_it_stays(bench, reply) -> None:
    answers = [reply(404), promise(reply, "1"), reply(404), promise(reply, "1")]
    found, _, _ = await asked(bench, answers)
    assert found == Found(known=True, used=True)
    found, recognition, requests = await asked(bench, lambda _: reply(404))
    assert found == Found(None, used=False)
    assert len(requests) == 4
    assert recognition.known(Flavour.PROTOBUF) is None


async def test_silence_leaves_even_the_number_in_doubt(bench) -> None:
    found, _, _ = await asked(bench, lambda _: Fault.TIMEOUT)
    assert found == Found(None, used=None)


async def test_the_question_waits_for_an_open_circuit_like_the_request_it_is_about(
    bench, reply
) -> None:
    """What kept the answer of that from us has often opened the circuit too."""
    upstream, _ = bench.upstream(lambda _: promise(reply, "1"), threshold=1)
    upstream.breaker.settle(upstream.breaker.acquire(), Outcome.FAILURE, "503")
    submitter = Submitter(upstream, bench.clock, patience_s=300)
    assert await Recognition().ask(submitter, "m", 7) == Found(known=True, used=True)


async def test_who_asks_at_the_same_time_has_the_first_ones_answer(bench, reply) -> None:
    recognition = Recognition()
    upstream, transport = bench.upstream(lambda _: promise(reply, "1"))
    submitter = Submitter(upstream, bench.clock)
    found = await asyncio.gather(*(recognition.ask(submitter, name, 7) for name in "ab"))
    assert found == [Found(known=True, used=True), Found(known=True, used=False)]
    assert len(transport.requests) == 2


@pytest.mark.parametrize(
    ("assumed", "protobuf", "json"),
    [(Assumed.ASK, None, False), (Assumed.YES, True, True), (Assumed.NO, False, False)],
)
def test_what_is_assumed_before_it_is_asked(assumed, protobuf, json) -> None:
    recognition = Recognition(assumed)
    assert recognition.known(Flavour.PROTOBUF) is protobuf
    assert recognition.known(Flavour.JSON) is json
