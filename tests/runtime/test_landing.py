"""Requests of an earlier run that were in doubt for good; how others land is in test_lanes.py."""

import msgspec
import pytest

from tests.runtime.test_lanes import (  # noqa: F401 - fixtures
    STEP,
    answers,
    driver_with,
    entry,
    gone,
    library,
    sent,
    service,
)
from tinkex_proxy.core.outcome import Fault
from tinkex_proxy.errors import OutcomeUnknown
from tinkex_proxy.runtime.pages import Page
from tinkex_proxy.runtime.recognition import Assumed, Recognition


def doubted(seq_id: int, name: str) -> Page:
    record = msgspec.structs.replace(sent(seq_id, (name, "0.0")).record, body=b"", doubted=True)
    return Page(record, [name])


async def test_what_an_earlier_run_left_in_doubt_is_told_and_not_sent(driver_with, service) -> None:  # noqa: F811
    """Its number may be used: a 409 to who has it now says so."""
    driver = driver_with(next_seq=5)
    page = doubted(5, "c")
    driver.resume([page], keep_s=60)
    assert driver.lane.on_wire is None
    origin = entry("c")
    (told,) = await answers(driver.put([STEP], deadline=None, origin=origin))
    assert isinstance(told, OutcomeUnknown)
    assert service.submits == []
    assert not page.gone
    origin.turned()
    assert page.gone
    service.instead = [service.reply(409), None]
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert answer == {"type": "optim_step", "seq": 6}


@pytest.mark.parametrize("earlier", [True, False])
async def test_a_request_in_doubt_stays_in_the_journal_until_its_callers_are_told(
    driver_with,  # noqa: F811
    service,  # noqa: F811
    library,  # noqa: F811
    earlier,
) -> None:
    """Of this run or of an earlier one: a run that knew nothing of it would send it again."""
    driver = driver_with(journal := library.journal(), next_seq=1)
    driver._admitter._recognition = Recognition(Assumed.NO)
    origin = entry("c")
    if earlier:
        driver.resume([sent(1, ("c", "0.0"), repeatable=False)], keep_s=60)
    else:
        service.instead = [Fault.RESET]
    (told,) = await answers(driver.put([STEP], deadline=None, origin=origin))
    assert isinstance(told, OutcomeUnknown)
    await journal.commit()
    (batch,) = library.batches()
    assert (batch.seq_id, batch.doubted, batch.body) == (1, True, b"")
    (answer,) = await answers(driver.put([STEP], deadline=None))
    assert answer == {"type": "optim_step", "seq": 1}  # the number was given back
    await journal.commit()
    assert library.batches() == [batch]
    journal.note(*origin.turned())
    await journal.commit()
    assert library.batches() == []
