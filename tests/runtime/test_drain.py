import asyncio

import pytest

from tinkex_proxy.runtime.clock import ManualClock
from tinkex_proxy.runtime.drain import Ending, OpenRequests, Release, Stage


def test_the_end_is_asked_for_once() -> None:
    """Who asks again changes nothing; the first reason stays."""
    ending = Ending(ManualClock())
    assert (ending.stage, ending.asked.is_set(), ending.why) == (Stage.SERVING, False, None)
    ending.ask("SIGTERM")
    ending.ask("POST /drain")
    assert (ending.asked.is_set(), ending.hurried.is_set(), ending.why) == (True, False, "SIGTERM")


def test_a_stage_says_how_long_it_can_still_take() -> None:
    clock = ManualClock()
    ending = Ending(clock)
    assert ending.left_s is None
    ending.enter(Stage.DRAINING, lasts_s=30.0)
    clock.advance(12.0)
    assert (ending.stage, ending.left_s) == (Stage.DRAINING, 18.0)
    clock.advance(20.0)
    assert ending.left_s == 0.0
    ending.enter(Stage.LEAVING)
    assert ending.left_s is None


async def test_the_last_request_lets_those_go_that_wait_for_none() -> None:
    requests = OpenRequests()
    await requests.none()
    with requests:
        with requests:
            assert requests.count == 2
            waiting = asyncio.ensure_future(requests.none())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    assert requests.count == 0


async def test_a_request_that_fails_is_over_too() -> None:
    requests = OpenRequests()
    with pytest.raises(ValueError, match="no"), requests:
        raise ValueError("no")
    await requests.none()


async def test_everybody_is_let_go_once_and_who_comes_later_at_once() -> None:
    release, gone = Release(), []
    release.hold(lambda: gone.append("held"))
    stays = release.hold(lambda: gone.append("stays"))
    stays()
    stays()
    release.set()
    release.set()
    assert gone == ["held"]
    assert release.is_set()
    release.hold(lambda: gone.append("later"))
    called_off = release.hold(lambda: gone.append("never"))
    called_off()
    assert gone == ["held"]
    await asyncio.sleep(0)
    assert gone == ["held", "later"]
