"""What the journal costs: throughput and latency with it and without, run by run in turn.

    python -m tests.bench.journal [--seconds 6] [--rounds 5]

A sandbox, a proxy with a journal and one without, as processes. Callers make `forward_backward`
calls of one short datum under an Idempotency-Key each, every caller on a model of its own, so that
nothing is shared and every call has pages of its own in the journal: its worst case. Pairs of runs
are compared, because a machine's speed is not the same from one minute to the next.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.faults.harness import BASE_MODEL, Process

DATUM = {"tokens": [1, 2, 3, 4], "targets": [2, 3, 4, 5]}
CALLERS = (1, 16, 64)


async def run(url: str, callers: int, seconds: float) -> tuple[float, float]:
    """Calls a second, and the median seconds of one."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=url, limits=limits, timeout=60, trust_env=False
    ) as client:
        made = [
            (await client.post("/v1/models", json={"base_model": BASE_MODEL, "rank": 1})).json()
            for _ in range(callers)
        ]
        took: list[float] = []
        until = time.perf_counter() + seconds

        async def calling(model_id: str) -> None:
            body = {"model_id": model_id, "data": [DATUM]}
            while (began := time.perf_counter()) < until:
                key = {"idempotency-key": uuid.uuid4().hex}
                answer = await client.post("/v1/forward_backward", json=body, headers=key)
                answer.raise_for_status()
                took.append(time.perf_counter() - began)

        await asyncio.gather(*(calling(model["model_id"]) for model in made))
        for model in made:
            await client.delete(f"/v1/models/{model['model_id']}")
    return len(took) / seconds, statistics.median(took)


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows of a Markdown table."""
    return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    rows: list[Sequence[object]] = [
        ("callers", "calls/s without", "with", "lost, each pair", "median", "p50 without", "with"),
        ("---",) * 7,
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        sandbox = Process("sandbox", "--tick-ms", "1", log=log).start()
        base = ("--upstream.base-url", sandbox.url, "--calls.max-kept-answers", "1000")
        plain = Process("serve", *base, "--journal.enabled", "false", log=log).start()
        kept = Process("serve", *base, "--journal.state-dir", folder, log=log).start()
        try:
            for callers in CALLERS:
                pairs = []
                for number in range(chosen.rounds):
                    order = [plain, kept] if number % 2 else [kept, plain]
                    seen = {
                        one: asyncio.run(run(one.url, callers, chosen.seconds)) for one in order
                    }
                    pairs.append((seen[plain], seen[kept]))
                lost = [1 - with_[0] / without[0] for without, with_ in pairs]
                rows.append(
                    (
                        callers,
                        f"{statistics.median(p[0][0] for p in pairs):.0f}",
                        f"{statistics.median(p[1][0] for p in pairs):.0f}",
                        " ".join(f"{share:+.1%}" for share in lost),
                        f"{statistics.median(lost):+.1%}",
                        f"{statistics.median(p[0][1] for p in pairs) * 1e3:.2f} ms",
                        f"{statistics.median(p[1][1] for p in pairs) * 1e3:.2f} ms",
                    )
                )
        finally:
            for process in (plain, kept, sandbox):
                process.stop()
    print(table(rows))


if __name__ == "__main__":
    main()
