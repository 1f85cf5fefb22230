import asyncio

import pytest

from tinkex_proxy.runtime.tasks import Tasks


async def test_a_crash_nobody_awaits_is_reported() -> None:
    crashes: list[tuple[str, BaseException]] = []
    tasks = Tasks(lambda name, error: crashes.append((name, error)))

    async def fail() -> None:
        raise ValueError("boom")

    task = tasks.spawn("doomed", fail())
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [(name, str(error)) for name, error in crashes] == [("doomed", "boom")]
    assert len(tasks) == 0


async def test_a_task_somebody_awaits_reports_to_him_alone() -> None:
    crashes: list[object] = []
    tasks = Tasks(lambda name, error: crashes.append(error))

    async def fail() -> int:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        await tasks.start("awaited", fail())
    assert crashes == []


async def test_cancel_all_waits_for_the_end() -> None:
    tasks = Tasks(lambda name, error: None)
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("yes")

    tasks.spawn("forever", forever())
    await asyncio.sleep(0)
    assert len(tasks) == 1
    await tasks.cancel_all()
    assert ended == ["yes"]
