"""Sampling: from a base model, from saved weights, or from a model as it is now.

Sampling from a model id means saving its weights for the sampler first. That save is an order on
the model's lane, so the sample sees every step submitted before it; as long as no later step is
submitted, further samples reuse it, those that come while it is being made included.
"""

import asyncio
from typing import Final

import msgspec

from tinkex_proxy.core.outcome import Operation
from tinkex_proxy.core.retry import Kind
from tinkex_proxy.core.timeline import Part, Timeline
from tinkex_proxy.errors import UpstreamFault
from tinkex_proxy.runtime.account import Account
from tinkex_proxy.runtime.futures import LARGE_BYTES, Waiters
from tinkex_proxy.runtime.models import Model, Sampler
from tinkex_proxy.runtime.pace import Leave
from tinkex_proxy.runtime.submit import Admitted, Refused
from tinkex_proxy.runtime.trainer import Ticket, order
from tinkex_proxy.runtime.upstream import JSON, PROTOBUF, Ask
from tinkex_proxy.runtime.whose import Behalf, fresh_id
from tinkex_proxy.runtime.work import Order
from tinkex_proxy.wire.datum import Flavour
from tinkex_proxy.wire.plain import Sample
from tinkex_proxy.wire.sample import SampleAnswer, decode_sample

__all__ = ["sample"]

# In an answer, with its logprob: 8 in protobuf, some 25 in JSON.
BYTES_OF_TOKEN: Final = 16


async def sample(account: Account, body: Sample, ticket: Ticket) -> SampleAnswer:
    """Draw `num_samples` continuations of a prompt."""
    account.upstream.breaker.check()
    if body.model_id is None:
        ticket.leave()  # no lane of this key is concerned
    for may_retry in (True, False):
        sampler, verdict = await _submit(account, body, ticket)
        if isinstance(verdict, Admitted):
            return await _result(account, verdict, ticket, large=_may_be_large(body))
        if verdict.status not in {404, 410} or not may_retry:
            raise verdict.error
        account.forget(sampler)
        if body.model_id is not None:
            account.model(body.model_id).shown = None
    raise AssertionError("unreachable")  # pragma: no cover


async def _submit(
    account: Account, body: Sample, ticket: Ticket
) -> tuple[Sampler, Admitted | Refused]:
    """Send it once its turn has come; until then its caller can take it back."""
    tools, leave = account.tools, None
    try:
        with ticket.unsent():
            sampler = await _sampler_of(account, body, ticket)
            leave = tools.submitter.leave(("sampler", sampler.sampling_session_id))
            if not leave.at_once():
                with ticket.spending(Part.QUEUE, tools.clock):
                    await leave.wait()
        ask = _ask(body, sampler, leave, ticket.behalf)
        with ticket.spending(Part.UPLOAD, tools.clock):
            verdict = await tools.submitter.submit(ask)
    finally:
        if leave is not None:
            leave.give_back()
    return sampler, verdict


def _may_be_large(body: Sample) -> bool:
    most = body.sampling_params.max_tokens
    return most is None or body.num_samples * most * BYTES_OF_TOKEN >= LARGE_BYTES


async def _result(
    account: Account, admitted: Admitted, ticket: Ticket, *, large: bool
) -> SampleAnswer:
    response = admitted.response
    if admitted.request_id is not None:
        accept = PROTOBUF if account.flavour is Flavour.PROTOBUF else JSON
        response = await account.tools.poller.result(
            admitted.request_id,
            accept=accept,
            waiters=Waiters((ticket.timeline,), ticket.behalf, large),
        )
    return decode_sample(response.body, response.content_type)


def _ask(body: Sample, sampler: Sampler, leave: Leave, behalf: Behalf) -> Ask:
    fields = {
        "sampling_session_id": sampler.sampling_session_id,
        "seq_id": sampler.take_seq(),
        "num_samples": body.num_samples,
        "prompt": body.prompt,
        "sampling_params": body.sampling_params,
        "prompt_logprobs": body.prompt_logprobs,
        "topk_prompt_logprobs": body.topk_prompt_logprobs,
        "type": "sample",
    }
    return Ask(
        operation=Operation.SUBMIT,
        path="/api/v1/asample",
        body=msgspec.json.encode(fields),
        identity=fresh_id(),
        kind=Kind.SAMPLE,
        flow=leave.flow,
        leave=leave,
        behalf=behalf,
    )


async def _sampler_of(account: Account, body: Sample, ticket: Ticket) -> Sampler:
    clock = account.tools.clock
    kind = "model_path" if body.base_model is None else "base_model"
    name = body.model_path if body.base_model is None else body.base_model
    if name is not None:
        if (known := account.known_sampler(kind, name)) is not None:
            return known
        with ticket.spending(Part.UPLOAD, clock):
            return await account.sampler(kind, name)
    await ticket.pass_by(account.turns)
    model = account.model(body.model_id or "")
    making = model.present_sampler()
    if making is None:
        making = account.tools.tasks.start("sampler " + model.model_id, _save(account, model))
        model.show(making)
    ticket.model_ids[model.model_id] = None
    waits_since = clock.now()
    ticket.timeline.enter(Part.QUEUE, waits_since)
    try:
        # Shielded: others wait for the same sampler, so one caller's leaving must not end it.
        sampler = await asyncio.shield(making)
        if sampler.made is not None:
            ticket.timeline.join(sampler.made, clock.now(), since=waits_since)
    finally:
        ticket.timeline.enter(Part.PROXY, clock.now())
    return sampler


async def _save(account: Account, model: Model) -> Sampler:
    """Save the present weights for sampling and open a sampling session on them."""
    fields = {
        "sampling_session_seq_id": account.session.next_sampler_seq(),
        "type": "save_weights_for_sampler",
    }
    work = Order("/api/v1/save_weights_for_sampler", fields)
    clock = account.tools.clock
    ticket = Ticket(timeline=Timeline(clock.now(), Part.QUEUE))
    answer = await order(account, model.model_id, ticket, work)
    if isinstance(session := answer.get("sampling_session_id"), str):
        return Sampler(session, made=ticket.timeline)
    if isinstance(path := answer.get("path"), str):
        with ticket.spending(Part.UPLOAD, clock):
            sampler = await account.sampler("model_path", path)
        sampler.made = ticket.timeline
        return sampler
    raise UpstreamFault("save_weights_for_sampler gave neither a session nor a path.")
