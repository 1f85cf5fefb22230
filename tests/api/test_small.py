"""Which requests may go a short way."""

import logging

import pytest

from tinkex_proxy.api.asgi import ANSWER
from tinkex_proxy.api.small import key_named, small_of
from tinkex_proxy.runtime.tracer import OFF

PAIRS = [(b"host", b"localhost"), (b"x-api-key", b" tml-mine ")]
OFFERED = {ANSWER: {}}


class Services:
    draining = False
    tracer = OFF


class Tracer:
    on = True


def scope_of(*more: tuple[bytes, bytes], offered: object = OFFERED) -> dict[str, object]:
    return {"headers": [*PAIRS, *more], "extensions": offered}


def test_what_is_plain_may() -> None:
    named = small_of(scope_of(), Services(), {b"unusual"})
    assert named == dict(PAIRS)
    assert key_named(named) == "tml-mine"
    assert key_named({}) is None
    assert key_named({b"x-api-key": b" "}) is None


@pytest.mark.parametrize(
    "scope",
    [
        scope_of((b"unusual", b"")),
        scope_of((b"host", b"localhost")),
        scope_of(offered=None),
        scope_of(offered={}),
        {"headers": [(b"x-api-key", b"\xe4")], "extensions": OFFERED},
    ],
)
def test_what_is_not_may_not(scope) -> None:
    assert small_of(scope, Services(), {b"unusual"}) is None


@pytest.mark.parametrize(("name", "value"), [("draining", True), ("tracer", Tracer)])
def test_nothing_may_while_all_is_looked_at_more_closely(name: str, value: object) -> None:
    services = Services()
    setattr(services, name, value)
    assert small_of(scope_of(), services, set()) is None


def test_nothing_may_where_each_line_of_the_log_is_wanted_at_once() -> None:
    log = logging.getLogger("tinkex_proxy")
    before = log.level
    log.setLevel(logging.DEBUG)
    try:
        assert small_of(scope_of(), Services(), set()) is None
    finally:
        log.setLevel(before)
