"""The parts of a call's time sum to the whole, whatever is told, late, twice or never."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tinkex_proxy.core.timeline import Held, Part, Stretch, Timeline

Q, L, U, C, P = Part.QUEUE, Part.LINGER, Part.UPLOAD, Part.COMPUTE, Part.PROXY


def seconds(line: Timeline) -> dict[str, float]:
    return {part.value: took for part, took in line.parts().items() if took}


def path(*moments: tuple[Part, float], began: float) -> Timeline:
    """A path that was in each part until its moment, and then ended."""
    line = Timeline(began)
    for part, until in moments:
        line.spent(part, until)
    line.end(line.last)
    return line


def test_entering_a_part_ends_the_one_before() -> None:
    line = Timeline(10.0, Q)
    line.enter(U, 11.0)
    line.enter(C, 13.0)
    line.end(17.0)
    assert seconds(line) == {"queue": 1.0, "upload": 2.0, "compute": 4.0}
    assert line.whole_s == 7.0
    assert line.stretches() == [Stretch(Q, 10, 11), Stretch(U, 11, 13), Stretch(C, 13, 17)]


def test_what_is_known_late_is_told_with_its_moment() -> None:
    line = Timeline(0.0, Q)
    line.enter(L, 2.0)  # known only at 5
    line.enter(C, 5.0)
    line.spent(Part.UPSTREAM_QUEUE, 8.0)
    line.end(9.0)
    expected = {"queue": 2.0, "linger": 3.0, "upstream-queue": 3.0, "compute": 1.0}
    assert seconds(line) == expected


def test_a_moment_before_what_is_known_changes_no_time() -> None:
    line = Timeline(4.0, Q)
    line.enter(L, 1.0)
    line.end(5.0)
    assert seconds(line) == {"linger": 1.0}
    assert line.began == 4.0


def test_nothing_counts_after_the_end() -> None:
    line = Timeline(0.0, Q)
    line.end(1.0)
    line.enter(C, 5.0)
    line.end(9.0)
    line.join(path((C, 20.0), began=1.0), 20.0)
    assert (seconds(line), line.whole_s) == ({"queue": 1.0}, 1.0)
    assert line.stretches(30.0) == [Stretch(Q, 0, 1)]


def test_neighbours_of_one_part_are_one_stretch() -> None:
    line = Timeline(0.0, Q)
    line.spent(Q, 1.0)
    line.end(2.0)
    assert line.stretches() == [Stretch(Q, 0, 2)]


def test_the_overhead_is_what_is_not_the_upstreams() -> None:
    line = Timeline(0.0)
    for until, part in enumerate(Part, 1):
        line.spent(part, float(until))
    assert line.whole_s == len(Part)
    assert line.overhead_s == 4.0
    assert {part for part in Part if not part.upstream} == {P, Q, L, Part.JOURNAL}


def test_one_piece_is_the_calls_path_and_what_is_around_it_is_the_calls_own() -> None:
    call = Timeline(0.0)
    call.join(path((Q, 3.0), (C, 6.0), began=1.0), 6.5)
    call.end(8.0)
    assert call.stretches() == [
        Stretch(P, 0, 1),
        Stretch(Q, 1, 3),
        Stretch(C, 3, 6),
        Stretch(P, 6, 8),
    ]


def test_of_several_pieces_the_last_to_end_is_the_path() -> None:
    first = path((Q, 2.0), (C, 5.0), began=1.0)
    last = path((Q, 4.0), (U, 5.0), (C, 9.0), began=1.0)
    for order in ([first, last], [last, first]):
        call = Timeline(0.0)
        for piece in order:
            call.join(piece, 9.0)
        call.end(9.0)
        assert seconds(call) == {"proxy": 1.0, "queue": 3.0, "upload": 1.0, "compute": 4.0}


def test_before_the_last_piece_began_the_path_is_the_one_it_waited_for() -> None:
    call = Timeline(0.0)
    call.join(path((Q, 2.0), (C, 6.0), began=0.0), 6.0)
    call.join(path((U, 8.0), began=4.0), 8.0)  # begun while the first was in compute
    call.end(8.0)
    assert call.stretches() == [Stretch(Q, 0, 2), Stretch(C, 2, 4), Stretch(U, 4, 8)]


def test_a_path_may_replace_all_that_was_joined_after_it_began() -> None:
    call = Timeline(0.0)
    call.join(path((Q, 2.0), (C, 6.0), began=1.0), 6.0)
    call.join(path((U, 8.0), began=1.0), 8.0)
    assert call.stretches() == [Stretch(P, 0, 1), Stretch(U, 1, 8)]


def test_what_had_begun_before_counts_from_when_it_was_waited_for() -> None:
    made = path((Q, 2.0), (C, 6.0), began=0.0)
    call = Timeline(3.0)
    call.join(made, 6.0, since=4.0)
    assert seconds(call) == {"proxy": 1.0, "compute": 2.0}
    late = Timeline(3.0)
    late.join(made, 6.0)
    assert seconds(late) == {"compute": 3.0}
    after = Timeline(7.0)
    after.join(made, 9.0, since=8.0)
    assert (seconds(after), after.whole_s) == ({}, 0.0)


def test_a_path_that_has_not_ended_counts_up_to_now() -> None:
    piece = Timeline(1.0, Q)
    piece.enter(C, 2.0)
    call = Timeline(0.0)
    call.join(piece, 5.0)
    assert seconds(call) == {"proxy": 1.0, "queue": 1.0, "compute": 3.0}
    assert seconds(piece) == {"queue": 1.0}
    empty = Timeline(5.0)
    call.join(empty, 5.0)
    assert call.last == 5.0


def test_a_joined_path_brings_what_the_upstream_said() -> None:
    piece = path((C, 2.0), began=0.0)
    piece.held = Held("paused_capacity", "no room")
    call = Timeline(0.0)
    call.join(piece, 2.0)
    call.join(path((C, 3.0), began=0.0), 3.0)
    assert call.held == Held("paused_capacity", "no room")


_MOMENTS = st.integers(0, 64).map(lambda n: n / 8)
_STEPS = st.lists(st.tuples(st.sampled_from(Part), _MOMENTS), max_size=8)


@given(_STEPS, st.lists(st.tuples(_MOMENTS, _STEPS, st.booleans()), max_size=5))
def test_the_parts_always_sum_to_the_whole(steps, pieces) -> None:
    call = Timeline(2.0)
    for part, moment in steps:
        call.enter(part, moment)
    for began, inner, ended in pieces:
        piece = Timeline(began)
        for part, moment in inner:
            piece.spent(part, moment)
        if ended:
            piece.end(9.0)
        call.join(piece, 9.0)
    call.end(10.0)
    assert sum(call.parts().values()) == call.whole_s == 8.0
    stretches = call.stretches()
    assert stretches[0].since == 2.0
    assert all(a.until == b.since for a, b in itertools.pairwise(stretches))


def test_what_was_waited_for_takes_the_place_of_what_was_told_since() -> None:
    line = Timeline(0.0)
    line.enter(Part.QUEUE, 1.0)
    line.enter(Part.UPLOAD, 5.0)
    line.waited(Part.COMPUTE, 3.0, 8.0)
    assert [(stretch.part, stretch.until) for stretch in line.stretches()] == [
        (Part.PROXY, 1.0),
        (Part.QUEUE, 3.0),
        (Part.COMPUTE, 8.0),
    ]
    line.waited(Part.QUEUE, 2.0, 8.0)  # over before what is known
    assert line.last == 8.0
