"""What is large is done in a thread, what is small at once."""

import asyncio
import sys
import threading

import pytest

from tinkex_proxy.runtime.aside import GIVE_WAY_S, Aside


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
