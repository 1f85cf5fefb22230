"""The upstream is away, or failing, when a proxy that has just started is first called."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import SHORT
from tests.faults.harness import Program, Stack, apart, caller, endings, stack, together

STEPS = 1
OUTAGE_S = 1.5


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Stack]:
    """No session, no model, nothing known of the upstream."""
    with stack(tmp_path, proxy=SHORT) as up:
        yield up


@pytest.mark.parametrize("program", [apart, pytest.param(together, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "error", "status": 503},
        {"kind": "lost", "when": "before"},
        {"kind": "error", "status": 502, "when": "after"},
    ],
    ids=["resets", "503", "silence", "502 after acting"],
)
async def test_callers_who_come_in_an_outage_train_once_it_is_over(
    fault: dict[str, object], program: Program, fresh: Stack
) -> None:
    """What a call needed first could not be asked: it has not begun, and may come again."""
    fresh.faults({**fault, "for_s": OUTAGE_S})
    async with caller(fresh.proxy.url) as persistent:
        done = await program(persistent, STEPS)
        assert fresh.hits() > 0
        fresh.faults()
        again = await program(persistent, STEPS)
    assert endings(done, fresh) == endings(again, fresh)


@pytest.mark.parametrize("status", [500, pytest.param(502, marks=pytest.mark.long)])
async def test_a_bad_day_is_not_taken_for_another_generation_of_upstream(
    status: int, fresh: Stack
) -> None:
    """Of a JSON upstream lost answers are not asked for again, so this would last."""
    fresh.faults({"kind": "error", "status": status, "rate": 0.4, "path": "training"}, seed=1)
    async with caller(fresh.proxy.url) as persistent:
        done = await apart(persistent, STEPS)
        assert fresh.hits() > 0
        fresh.faults()
        again = await apart(persistent, STEPS)
    assert fresh.flavours() == ["protobuf"]
    assert endings(done, fresh) == endings(again, fresh)
