"""Turns: fair among flows, in order within one, and no trace of what has gone."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tinkex_proxy.core.fair import FairLine


def taken(line: FairLine[str]) -> list[str]:
    return [line.take() for _ in range(len(line))]


def test_flows_take_turns_and_within_one_it_is_first_come_first_served() -> None:
    line = FairLine[str]()
    for thing in ("a1", "a2", "a3", "b1", "c1", "c2"):
        line.add(thing[0], thing)
    assert (len(line), line.flows) == (6, 3)
    assert taken(line) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert (len(line), line.flows) == (0, 0)
    with pytest.raises(LookupError):
        line.take()


def test_two_thousand_samples_do_not_stand_before_one_step() -> None:
    line = FairLine[str]()
    for number in range(2000):
        line.add("sampling session", f"sample {number}")
    line.add("lane", "optim_step")
    assert [line.take(), line.take()] == ["sample 0", "optim_step"]


def test_who_has_gone_leaves_no_place_behind() -> None:
    line = FairLine[str]()
    first, alone = line.add("a", "a1"), line.add("b", "b1")
    line.add("a", "a2")
    assert line.remove(first)
    assert line.remove(alone)
    assert line.flows == 1
    assert not line.remove(first)
    assert taken(line) == ["a2"]
    assert not line.remove(first)


@given(st.lists(st.integers(0, 5), max_size=60))
def test_all_that_came_goes_once_and_in_its_flows_order(flows: list[int]) -> None:
    line = FairLine[str]()
    lines = defaultdict(list)
    for number, flow in enumerate(flows):
        line.add(flow, f"{flow} {number}")
        lines[flow].append(f"{flow} {number}")
    gone = defaultdict(list)
    for thing in taken(line):
        gone[int(thing.split()[0])].append(thing)
    assert gone == lines


class Turns(RuleBasedStateMachine):
    """Things come, go and give up in any order; the model counts the turns that each waits."""

    def __init__(self) -> None:
        super().__init__()
        self.line = FairLine[int]()
        self.flows: dict[int, list[int]] = defaultdict(list)
        self.places: dict[int, int] = {}
        self.turns: dict[int, set[int]] = {}
        self.count = 0

    @rule(flow=st.integers(0, 6))
    def come(self, flow: int) -> None:
        self.count += 1
        if not self.flows[flow]:
            self.turns[flow] = set()
        self.flows[flow].append(self.count)
        self.places[self.count] = self.line.add(flow, self.count)

    @precondition(lambda self: self.places)
    @rule()
    def go(self) -> None:
        thing = self.line.take()
        flow = next(flow for flow, things in self.flows.items() if thing in things)
        assert thing == self.flows[flow].pop(0), "out of its flow's order"
        del self.places[thing]
        self.turns[flow] = set()
        for other, things in self.flows.items():
            if other != flow and things:
                assert flow not in self.turns[other], f"{flow} had two turns while {other} waited"
                self.turns[other].add(flow)

    @precondition(lambda self: self.places)
    @rule(choice=st.integers(0, 1000))
    def give_up(self, choice: int) -> None:
        thing = sorted(self.places)[choice % len(self.places)]
        assert self.line.remove(self.places.pop(thing))
        for things in self.flows.values():
            if thing in things:
                things.remove(thing)

    @invariant()
    def nothing_is_kept_of_who_is_gone(self) -> None:
        assert len(self.line) == len(self.places)
        assert self.line.flows == sum(1 for things in self.flows.values() if things)


TestNoFlowWaitsMoreTurnsThanThereAreFlows = Turns.TestCase
