"""How long `serve` takes to be ready, and what it holds when idle. Run by `make bench-startup`.

Each run starts the real process on a free port, in front of an upstream that is not there (its
absence is not fatal), takes the time until its line says that it listens and `/health/live` has
answered, and reads its resident memory from the kernel.
"""

import re
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

RUNS = 9


def one_run() -> tuple[float, float]:
    """Seconds to the first answer, MiB resident after it."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "tinkex_proxy", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--upstream.base-url", "http://127.0.0.1:1", "--log.level", "error"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url is not None
        with urllib.request.urlopen(f"{url[0]}/health/live", timeout=10) as answer:  # noqa: S310
            answer.read()
        took = time.perf_counter() - began
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert resident is not None
        return took, int(resident[1]) / 1024
    finally:
        process.terminate()
        process.communicate(timeout=30)


def main() -> None:
    """Print medians and ranges."""
    one_run()  # the first one compiles and warms the disk cache
    runs = [one_run() for _ in range(RUNS)]
    for name, unit, values in (
        ("ready after", "s", [took for took, _ in runs]),
        ("resident when idle", "MiB", [resident for _, resident in runs]),
    ):
        low, median, high = min(values), statistics.median(values), max(values)
        print(f"{name}: median {median:.2f} {unit} (min {low:.2f}, max {high:.2f}, {RUNS} runs)")


if __name__ == "__main__":
    main()
