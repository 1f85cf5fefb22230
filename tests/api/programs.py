"""Programs that use the official SDK, as processes that are cued line by line and tell JSON.

A process each, because the SDK keeps threads and connections for as long as its process lives.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

KEY = "tml-sandbox"


def sdk_environment(**more: str) -> dict[str, str]:
    """For a program of the SDK's: with its key, and not measured, for it runs nothing of ours."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return {**ours, "TINKER_API_KEY": KEY, **more}


class Program:
    """One program at work."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def told(self) -> object:
        """Its next line; where there is none, what it died of."""
        line = await self._process.stdout.readline()
        if not line:
            raise AssertionError((await self._process.stderr.read()).decode())
        return json.loads(line)

    async def __aiter__(self) -> AsyncIterator[object]:
        """All it has to say to its end."""
        async for line in self._process.stdout:
            yield json.loads(line)
        assert await self.ended() == 0, (await self._process.stderr.read()).decode()

    def cue(self) -> None:
        """Tell it to go on."""
        self._process.stdin.write(b"\n")

    async def ended(self) -> int:
        return await self._process.wait()


@asynccontextmanager
async def program(name: str, *arguments: object) -> AsyncIterator[Program]:
    """Run a program of this directory with the SDK's key set; it ends with the context."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(__file__).with_name(name),
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
        env=sdk_environment(),
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
