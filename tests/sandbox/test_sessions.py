"""Sessions: alive as long as they beat, and ended once."""

import pytest

from tinkex_proxy.sandbox.bodies import BadRequest
from tinkex_proxy.sandbox.sessions import Sessions


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.ended: list[str] = []
        self.sessions = Sessions(300.0, lambda: self.now, self.ended.append)

    def status(self, session_id: str) -> int:
        with pytest.raises(BadRequest) as refused:
            self.sessions.find(session_id)
        return refused.value.status


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_session_ends_when_it_was_silent_for_longer_than_the_timeout(bench) -> None:
    session_id = bench.sessions.create().session_id
    bench.now = 300.0
    assert bench.sessions.find(session_id).session_id == session_id
    bench.now = 300.1
    assert bench.status(session_id) == 410
    assert bench.ended == [session_id]


def test_a_beat_gives_it_the_whole_timeout_again(bench) -> None:
    session_id = bench.sessions.create().session_id
    bench.now = 299.0
    bench.sessions.beat(session_id)
    bench.now = 598.0
    bench.sessions.beat(session_id)
    assert bench.ended == []


def test_a_beat_does_not_wake_what_has_ended(bench) -> None:
    session_id = bench.sessions.create().session_id
    bench.now = 1000.0
    with pytest.raises(BadRequest) as refused:
        bench.sessions.beat(session_id)
    assert refused.value.status == 410


def test_sessions_end_each_for_itself(bench) -> None:
    first = bench.sessions.create().session_id
    bench.now = 200.0
    second = bench.sessions.create().session_id
    bench.now = 400.0
    assert bench.sessions.ids == [second]
    assert bench.ended == [first]


def test_what_never_was_is_not_found(bench) -> None:
    assert bench.status("session_x") == 404


def test_ending_twice_is_told_once(bench) -> None:
    session_id = bench.sessions.create().session_id
    bench.sessions.end(session_id)
    bench.sessions.end(session_id)
    assert bench.ended == [session_id]
