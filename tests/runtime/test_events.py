from typing import get_args

import pytest

from tinkex_proxy.runtime import events
from tinkex_proxy.runtime.events import FINE, Event, RequestEnded


def test_every_kind_is_told_and_is_one_of_those_that_listeners_know() -> None:
    kinds = {kind.__name__ for kind in get_args(Event)}
    assert kinds == set(events.__all__) - {"Event", "FINE"}


@pytest.mark.parametrize("kind", get_args(Event))
def test_nobody_changes_what_others_are_told_next(kind: type) -> None:
    assert kind.__struct_config__.frozen


def test_a_call_that_its_caller_took_back_is_no_failure() -> None:
    assert frozenset({"ok", "withdrawn"}) == FINE


def test_a_request_is_nobodys_wish_unless_that_is_said() -> None:
    assert not RequestEnded("/metrics", "GET", 200, 0.1).wanted
