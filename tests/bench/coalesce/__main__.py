"""What sharing requests gains, and what it costs who is alone. Run by `make bench-coalesce`.

Before a sandbox that answers each training submit and each poll 50 ms late, so that a call takes it
100 ms, eight datums come to one model in five ways (`tests/e2e/measurement.py`), in turns. Before a
sandbox without delay, a lone caller calls in turns with coalescing, without, and past the proxy.
With --skyrl the five ways are timed on SkyRL too.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx

from tests.bench.report import write_section
from tests.e2e.measurement import BATCH, COALESCED, CONCURRENT, ONE_BY_ONE, Row, measure
from tests.e2e.plain import UNCOALESCED, Json, connected, datums
from tests.e2e.servers import PROTOBUF, proxy, skyrl
from tests.processes import processes

TOKENS = 16
LATENCY_S = 0.1
LONE_CALLS = 200
MOST_LEFT = 0.2  # of the time of eight calls one after the other
MOST_ADDED_MS = 1.0
# What one SkyRL tick earlier or later does to a median of five.
NEVER_SLOWER = 1.1

Figure = tuple[str, str, str, bool]


def ms(seconds: Sequence[float]) -> str:
    """Median and range in milliseconds."""
    low, median, high = (1e3 * f(seconds) for f in (min, statistics.median, max))
    return f"{median:,.1f} ({low:,.1f}-{high:,.1f})"


async def five_ways(url: str, upstream: str) -> Row:
    """The five ways before one upstream."""
    async with connected(url) as plain, plain.model() as model_id:
        return await measure(plain, model_id, upstream, TOKENS)


def gained(row: Row, way: str) -> Figure:
    """How much less time a way takes than eight calls one after the other."""
    ratios = [
        one / all_ for one, all_ in zip(row.seconds[way], row.seconds[ONE_BY_ONE], strict=True)
    ]
    less = 1 - statistics.median(ratios)
    figures = f"{ms(row.seconds[way])} of {ms(row.seconds[ONE_BY_ONE])} ms: {less:.0%} less"
    if way == COALESCED:
        figures += f", most often as {statistics.mode(row.splits)}"
    return f"{row.upstream}: {way}", figures, f"≥ {1 - MOST_LEFT:.0%} less", less >= 1 - MOST_LEFT


def never_slower(row: Row) -> Figure:
    """Whether concurrent callers ever lose by sharing."""
    shared, alone = row.seconds[COALESCED], row.seconds[CONCURRENT]
    ratio = statistics.median(shared) / statistics.median(alone)
    figures = f"{ms(shared)} against {ms(alone)} ms: {ratio:.2f} times"
    what = f"{row.upstream}: {COALESCED}, against uncoalesced"
    return what, figures, f"never slower (≤ {NEVER_SLOWER:g} times)", ratio <= NEVER_SLOWER


async def past_the_proxy(http: httpx.AsyncClient, model_id: str, seq_id: int, data: Json) -> None:
    """A submit and a poll, as a program without a proxy would write them."""
    tokens = {"type": "encoded_text", "tokens": data["tokens"]}
    inputs = {
        "target_tokens": {"data": data["targets"], "dtype": "int64"},
        "weights": {"data": data["weights"], "dtype": "float32"},
    }
    datum = {"model_input": {"chunks": [tokens]}, "loss_fn_inputs": inputs}
    inner = {"data": [datum], "loss_fn": "cross_entropy"}
    body = {"model_id": model_id, "seq_id": seq_id, "forward_backward_input": inner}
    promised = (await http.post("/api/v1/forward_backward", json=body)).json()
    asked = {"request_id": promised["request_id"]}
    answer = await http.post("/api/v1/retrieve_future", json=asked)
    assert "loss_fn_outputs" in answer.json(), answer.text


async def own_model(http: httpx.AsyncClient) -> str:
    """A model made past the proxy."""
    session = (await http.post("/api/v1/create_session", json={})).json()["session_id"]
    fields = {"session_id": session, "model_seq_id": 0, "base_model": "sandbox/tiny-1"}
    body = {**fields, "lora_config": {"rank": 8}}
    promised = (await http.post("/api/v1/create_model", json=body)).json()
    asked = {"request_id": promised["request_id"]}
    return (await http.post("/api/v1/retrieve_future", json=asked)).json()["model_id"]


async def alone(url: str, upstream: str) -> list[Figure]:
    """What a lone caller waits, the three ways in turns."""
    (datum,) = datums(1, TOKENS)
    taken: dict[str, list[float]] = {"shared": [], "off": [], "direct": []}
    async with (
        connected(url) as plain,
        plain.model() as model_id,
        httpx.AsyncClient(base_url=upstream, timeout=30) as http,
    ):
        direct_id, number = await own_model(http), 0

        async def direct() -> None:
            nonlocal number
            number += 1
            await past_the_proxy(http, direct_id, number, datum)

        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "shared": lambda: plain.forward_backward(model_id, [datum]),
            "off": lambda: plain.forward_backward(model_id, [datum], UNCOALESCED),
            "direct": direct,
        }
        for turn in range(LONE_CALLS + 10):
            for name, way in ways.items():
                began = time.perf_counter()
                await way()
                if turn >= 10:
                    taken[name].append(time.perf_counter() - began)
    p50 = {name: statistics.median(times) * 1e3 for name, times in taken.items()}
    rows = []
    for other, said in (("off", "with `X-Tinkex-Coalesce: off`"), ("direct", "past the proxy")):
        added = p50["shared"] - p50[other]
        figures = f"{p50['shared']:.2f} against {p50[other]:.2f} ms: {added:+.2f} ms"
        wanted = f"≤ {MOST_ADDED_MS:g} ms more" if other == "off" else ""
        rows.append(
            (f"a lone caller, p50, against one {said}", figures, wanted, added <= MOST_ADDED_MS)
        )
    return rows


async def on_the_sandbox() -> list[Figure]:
    """Both sandboxes, one after the other."""
    half = f"delay_s={LATENCY_S / 2}"
    faults = [f"latency:{half},path=/api/v1/forward_backward+polls"]
    figures = []
    with tempfile.TemporaryDirectory() as place, processes() as start:
        late = start("sandbox", "--port", "0", "--fault", *faults)
        state = ("--journal.state-dir", place)
        front = start("serve", "--port", "0", "--upstream.base-url", late.url, *state)
        row = await five_ways(front.url, "sandbox, 100 ms a call")
        figures += [gained(row, COALESCED), gained(row, BATCH), never_slower(row)]
    with tempfile.TemporaryDirectory() as place, processes() as start:
        prompt = start("sandbox", "--port", "0")
        state = ("--journal.state-dir", place)
        front = start("serve", "--port", "0", "--upstream.base-url", prompt.url, *state)
        figures += await alone(front.url, prompt.url)
    return figures


async def on_skyrl() -> list[Figure]:
    """SkyRL's server of the protobuf generation, warm."""
    with (
        tempfile.TemporaryDirectory() as place,
        skyrl(PROTOBUF, Path(place)) as upstream,
        proxy(upstream.url) as front,
    ):
        row = await five_ways(front.url, "SkyRL 0.4.0")
    return [gained(row, BATCH), never_slower(row)]


def table(figures: Sequence[Figure]) -> str:
    """As Markdown."""
    lines = [("what", "measured", "target", "reached"), ("---",) * 4]
    for what, measured, wanted, good in figures:
        verdict = ("yes" if good else "**no**") if wanted else ""
        lines.append((what, measured, wanted, verdict))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the table; with --write put it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skyrl", action="store_true", help="on SkyRL too")
    parser.add_argument("--write", action="store_true", help="note the figures")
    args = parser.parse_args()
    figures = asyncio.run(on_the_sandbox())
    if args.skyrl:
        figures += asyncio.run(on_skyrl())
    made = table(figures)
    print(made)
    if args.write:
        said = (
            f"## Sharing requests\n\n`make bench-coalesce{' SKYRL=1' if args.skyrl else ''}`: "
            "eight datums of 16 tokens come to one model; the ways take turns. Medians of five "
            "(least-most); of the lone caller of 200. What each way is, and more of them: "
            "[coalescing.md](coalescing.md).\n\n"
        )
        write_section("coalesce", said + made)


if __name__ == "__main__":
    main()
