"""What a call takes of memory that only waits: 2,000 of them, before a sink that lets them wait."""

import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.compare import running
from tests.bench.compare.calls import Call
from tests.bench.compare.contestants import BY_NAME, OUR_SAMPLE, OURS

CALLS = 2000
# Long enough for all to be there before the first is answered.
DELAY_S = 12.0


@dataclass(frozen=True, slots=True)
class Held:
    """What was seen of one proxy.

    Attributes:
        name: the contestant's.
        idle_mib: resident before.
        held_mib: resident with all calls waiting.
        answered: how many of them were answered well in the end.
    """

    name: str
    idle_mib: float
    held_mib: float
    answered: int

    @property
    def each_kib(self) -> float:
        """What one call takes."""
        return (self.held_mib - self.idle_mib) * 1024 / CALLS


def held() -> list[Held]:
    """Measure a proxy that passes calls on, and one that does all it does."""
    return [_held(name) for name in (OURS, OUR_SAMPLE)]


def _held(name: str) -> Held:
    one = BY_NAME[name]
    options = ["--delay", str(DELAY_S), *([] if one.plain else ["--blind"])]
    with (
        tempfile.TemporaryDirectory(prefix="tinkex-compare-") as folder,
        running.sink(*options) as sink,
        running.contestant(one, sink.url, Path(folder)) as up,
    ):
        running.ready(up)
        idle = up.tree.resident_mib()
        most, answered = asyncio.run(_call_all(up, one.small, sink.url))
        return Held(name, idle, most, answered)


async def _call_all(up: running.Up, call: Call, sink: str) -> tuple[float, int]:
    """Make all calls at once; gives what is resident when all are held, and how many were well."""
    calls = [asyncio.ensure_future(_call(up.url, call)) for _ in range(CALLS)]
    while (at_sink := await _count(sink)) < CALLS:
        if any(one.done() for one in calls):
            raise RuntimeError(f"a call has ended when only {at_sink} were there")
        await asyncio.sleep(0.1)
    most = up.tree.resident_mib()
    return most, sum(await asyncio.gather(*calls))


async def _call(url: str, call: Call) -> bool:
    return b" 200 " in await _asked(url, "POST", call.path, call.body)


async def _count(sink: str) -> int:
    answer = await _asked(sink, "GET", "/held", b"")
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["held"])


async def _asked(url: str, method: str, path: str, body: bytes) -> bytes:
    """The answer to a request of small size, head and body."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read(65536)
    writer.close()
    return answer
