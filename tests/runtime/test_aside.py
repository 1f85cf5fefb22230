"""What is large is done in a thread, what is small at once."""

import asyncio
import sys
import threading
from functools import partial

import pytest

from tinkex_proxy.runtime.aside import GIVE_WAY_S, Aside, spread


@pytest.fixture
def aside():
    made = Aside()
    yield made
    made.close()


async def test_small_work_is_done_here_and_nothing_is_awaited(aside) -> None:
    """So calls whose bodies are small keep their order without further ado."""
    doing = aside.do(threading.current_thread, large=False)
    with pytest.raises(StopIteration) as done:
        doing.send(None)
    assert done.value.value is threading.current_thread()


async def test_large_work_is_done_in_a_thread_while_the_loop_goes_on(aside) -> None:
    go_on = threading.Event()

    def work() -> str:
        assert go_on.wait(timeout=20), "the loop is held up"
        return threading.current_thread().name

    doing = asyncio.create_task(aside.do(work, large=True))
    await asyncio.sleep(0)
    go_on.set()
    assert (await doing).startswith("aside")


async def test_threads_give_way_sooner_while_there_is_such_work_alone(aside) -> None:
    usual_s = sys.getswitchinterval()
    go_on = threading.Event()
    doing = [asyncio.create_task(aside.do(lambda: go_on.wait(20), large=True)) for _ in range(2)]
    await asyncio.sleep(0)
    assert sys.getswitchinterval() == pytest.approx(GIVE_WAY_S)
    go_on.set()
    await asyncio.gather(*doing)
    assert sys.getswitchinterval() == usual_s


async def test_what_only_copies_waits_for_nobodys_numbers(aside) -> None:
    go_on = threading.Event()
    numbers = asyncio.create_task(aside.do(lambda: go_on.wait(20), large=True))
    await asyncio.sleep(0)
    copied = await aside.copy(lambda: threading.current_thread().name, large=True)
    assert copied.startswith("copier")
    assert await aside.copy(threading.current_thread, large=False) is threading.current_thread()
    assert not numbers.done()
    go_on.set()
    assert await numbers


async def test_what_fails_there_fails_here(aside) -> None:
    def work() -> None:
        raise ValueError("wrong")

    for large in (True, False):
        with pytest.raises(ValueError, match="wrong"):
            await aside.do(work, large=large)


async def test_what_is_spread_leaves_turns_of_the_loop_to_others() -> None:
    seen: list[object] = []

    async def others() -> None:
        while len(seen) < 9:
            seen.append("others")
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    await spread([partial(seen.append, number) for number in range(5)], at_a_time=2)
    await beside
    assert [one for one in seen if one != "others"] == [0, 1, 2, 3, 4]
    assert seen[:7] == [0, 1, "others", 2, 3, "others", 4]


async def test_what_is_spread_is_done_although_nobody_waits_for_it_any_more() -> None:
    done: list[int] = []
    doing = asyncio.create_task(spread([partial(done.append, n) for n in range(5)], at_a_time=1))
    await asyncio.sleep(0)
    assert done == [0]
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    assert done == [0, 1, 2, 3, 4]
