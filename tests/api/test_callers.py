import asyncio

import pytest

from tinkex_proxy.api.asgi import CallerLeft
from tinkex_proxy.api.callers import digest_of, key_of, wait_for, wishes_of
from tinkex_proxy.api.watch import leaving_of
from tinkex_proxy.errors import ApiKeyRefused, DeadlineExceeded, InvalidRequest, OutcomeUnknown
from tinkex_proxy.runtime.ledger import Answer, Entry


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"x-api-key": " tml-a "}, "tml-a"),
        ({"authorization": "Bearer tml-b"}, "tml-b"),
        ({"authorization": "bearer  tml-b "}, "tml-b"),
        ({"authorization": "Basic dXNlcg=="}, None),
        ({"authorization": "Bearer "}, None),
        ({"x-api-key": "tml-a", "authorization": "Bearer tml-b"}, "tml-a"),
    ],
)
def test_the_callers_own_key(headers: dict[str, str], key: str | None) -> None:
    assert key_of(headers) == key


@pytest.mark.parametrize("name", ["x-api-key", "authorization"])
def test_a_key_that_no_header_can_carry_on_is_refused(name: str) -> None:
    """And not repeated in the refusal."""
    with pytest.raises(ApiKeyRefused) as caught:
        key_of({name: "Bearer tml-\xe9"})
    assert "tml" not in caught.value.detail


def test_wishes_and_their_defaults() -> None:
    plain = wishes_of({}, default_timeout_s=7)
    assert (plain.timeout_s, plain.idempotency_key, plain.respond_async, plain.coalesce) == (
        7,
        None,
        False,
        True,
    )
    wishes = wishes_of(
        {
            "x-request-timeout": "2.5",
            "idempotency-key": "k",
            "prefer": "wait=5, Respond-Async",
            "x-tinkex-coalesce": "OFF",
        },
        default_timeout_s=7,
    )
    assert (wishes.timeout_s, wishes.idempotency_key) == (2.5, "k")
    assert (wishes.respond_async, wishes.coalesce) == (True, False)


@pytest.mark.parametrize("said", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_timeout_is_a_number_of_seconds_above_zero(said: str) -> None:
    with pytest.raises(InvalidRequest, match="X-Request-Timeout"):
        wishes_of({"x-request-timeout": said}, default_timeout_s=None)


def test_two_calls_are_the_same_if_method_path_and_body_are() -> None:
    one = digest_of("POST", "/a", b"x")
    assert one == digest_of("POST", "/a", b"x")
    assert len({one, digest_of("GET", "/a", b"x"), digest_of("POST", "/b", b"x")}) == 3


class Ticket:
    def __init__(self, *, gives: bool) -> None:
        self.gives, self.asked = gives, 0

    def withdraw(self) -> bool:
        self.asked += 1
        return self.gives


async def silence():
    await asyncio.Event().wait()


async def hangs_up():
    return {"type": "http.disconnect"}


def hangs_up_after(*messages: str):
    """What a server may still say before the caller hangs up."""
    left = [{"type": kind} for kind in (*messages, "http.disconnect")]

    async def receive():
        return left.pop(0)

    return receive


async def waited_for(entry: Entry, ticket, receive, *, timeout_s) -> Answer:
    """`wait_for`, noting whether the answer was promised."""

    async def promise() -> None:
        entry.promised = True

    leaving = leaving_of({}, receive)
    return await wait_for(entry, ticket, leaving, timeout_s=timeout_s, promise=promise)


def entry_of(work) -> Entry:
    entry = Entry("e", "me", 1, None, b"")
    entry.task = asyncio.get_running_loop().create_task(work)
    return entry


async def forever() -> Answer:
    await asyncio.Event().wait()
    raise AssertionError


async def test_the_answer_comes_to_who_waits() -> None:
    async def work() -> Answer:
        return Answer(200, b"x")

    entry = entry_of(work())
    assert (await waited_for(entry, Ticket(gives=True), silence, timeout_s=None)).body == b"x"
    assert entry.waiters == 0


async def test_a_caller_that_leaves_in_time_takes_its_work_along() -> None:
    entry, ticket = entry_of(forever()), Ticket(gives=True)
    with pytest.raises(CallerLeft):
        await waited_for(entry, ticket, hangs_up, timeout_s=None)
    await asyncio.wait([entry.task])
    assert entry.task.cancelled()
    assert (ticket.asked, entry.wanted) == (1, False)


async def test_only_a_disconnect_is_a_hang_up() -> None:
    entry = entry_of(forever())
    receive = hangs_up_after("http.request", "http.request")
    with pytest.raises(CallerLeft):
        await waited_for(entry, Ticket(gives=True), receive, timeout_s=None)
    with pytest.raises(IndexError):  # it had asked until there was nothing left to say
        await receive()


async def test_a_caller_that_leaves_too_late_leaves_an_answer_to_fetch() -> None:
    entry = entry_of(forever())
    with pytest.raises(CallerLeft):
        await waited_for(entry, Ticket(gives=False), hangs_up, timeout_s=None)
    assert entry.wanted
    assert not entry.task.done()
    entry.task.cancel()


async def test_work_that_somebody_else_waits_for_is_not_taken_back() -> None:
    """Two connections under one Idempotency-Key: the first may leave without hurting the other."""
    entry, ticket = entry_of(forever()), Ticket(gives=True)
    entry.waiters = 1
    with pytest.raises(CallerLeft):
        await waited_for(entry, ticket, hangs_up, timeout_s=None)
    assert ticket.asked == 0
    assert not entry.task.done()
    entry.task.cancel()


@pytest.mark.parametrize(("gives", "said"), [(True, "nothing was sent"), (False, "/v1/futures/e")])
async def test_a_deadline_says_what_became_of_the_call(gives: bool, said: str) -> None:
    entry = entry_of(forever())
    with pytest.raises(DeadlineExceeded, match=said):
        await waited_for(entry, Ticket(gives=gives), silence, timeout_s=0.001)
    assert entry.promised is not gives
    entry.task.cancel()


async def test_a_caller_that_only_repeats_has_nothing_to_take_back() -> None:
    entry = entry_of(forever())
    with pytest.raises(DeadlineExceeded):
        await waited_for(entry, None, silence, timeout_s=0.001)
    assert not entry.task.cancelled()
    entry.task.cancel()


async def test_a_call_that_our_own_end_cut_off_may_have_run() -> None:
    entry, ticket = entry_of(forever()), Ticket(gives=True)
    entry.task.cancel()
    with pytest.raises(OutcomeUnknown, match="may have run"):
        await waited_for(entry, ticket, silence, timeout_s=None)
    assert ticket.asked == 0
