"""Requests that nobody would make but to fill a memory: no two alike in method, path, model or key.

They go one after another over a few connections at once, so that a hundred thousand are minutes.
"""

import asyncio
import itertools
import json
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

# The parser lets these through.
METHODS = ("GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS", "LOCK", "PURGE", "TRACE", "REPORT")
PATHS = (
    "/{n}",
    "/v1/{n}",
    "/v1/models/{n}",
    "/v1/futures/{n}",
    "/v1/optim_step",
    "/v1/forward_backward?{n}",
    "/api/v1/{n}",
    "/api/v1/asample/{n}",
    "/api/v1/optim_step",
    "/metrics/snapshot/{n}",
    "/metrics/reset/{n}",
    "/breakers/{n}/open",
    "/breakers/{n}/explain",
)
AT_ONCE = 8


async def attack(url: str, numbers: Iterable[int]) -> int:
    """Make a request of each number; gives how many were answered."""
    left = iter(numbers)
    return sum(await asyncio.gather(*(_connection(url, left) for _ in range(AT_ONCE))))


def request(n: int) -> bytes:
    """The nth request: each method meets each path, with a key of its own or without."""
    method, path = METHODS[n % len(METHODS)], PATHS[n % len(PATHS)].format(n=f"x{n}")
    body = json.dumps({"model_id": f"m{n}", "seq_id": n}).encode()
    key = f"x-api-key: tml-{n}\r\n" if n % 7 == 0 else ""
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"{key}content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _connection(url: str, numbers: Iterable[int]) -> int:
    parts = urlsplit(url)
    answered = 0
    while group := list(itertools.islice(numbers, 200)):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            for number in group:
                writer.write(request(number))
                await _answer(reader)
                answered += 1
        finally:
            writer.close()
    return answered


async def _answer(reader: asyncio.StreamReader) -> None:
    """Read one answer, whichever way it tells its length."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        while (size := int((await reader.readline()).strip(), 16)) > 0:
            await reader.readexactly(size + 2)
        await reader.readline()
        return
    length = next((ln for ln in head.split(b"\r\n") if ln.startswith(b"content-length:")), b":0")
    await reader.readexactly(int(length.partition(b":")[2]))


def series_of(scraped: str) -> set[str]:
    """Names and labels of all series, whichever the keys and their breakers are."""
    named = {ln.rpartition(" ")[0] for ln in scraped.splitlines() if not ln.startswith("#")}
    return {re.sub(r'(breaker|key_id)="[^"]*"', r"\1", name) for name in named}


def keys_of(scraped: str) -> set[str]:
    """The keys, and the breakers, that series are about."""
    return set(re.findall(r'(?:breaker|key_id)="[^"]*"', scraped))


def named_by_callers(series: Iterable[str]) -> list[str]:
    """Series whose labels hold what was made up for a request."""
    return [name for name in series if re.search(r'["/.](x|m|tml-)[0-9]+', name)]
