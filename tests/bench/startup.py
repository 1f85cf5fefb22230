"""How long `serve` takes to be ready, and what it holds when idle. Run by `make bench-startup`.

Each run starts the real process on a free port, in front of an upstream that is not there (its
absence is not fatal), takes the time until its line says that it listens and `/health/live` has
answered, and reads its resident memory from the kernel. It starts as from an installed package,
whose modules pip, and the image, have compiled to bytecode. (Where `PYTHONDONTWRITEBYTECODE` is
set, a checkout is compiled anew at each start.)

Where the time goes is read from Python's own record of imports (`-X importtime`): of each package
what its modules take themselves, without those that they import. That record makes imports slower
by a third, so shares are what it tells.
"""

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.bench.report import write_section

RUNS = 9
READY_S = 0.6
PROFILES = 5
SHOWN = 15
UNCOMPILED = "PYTHONDONTWRITEBYTECODE"
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


@contextlib.contextmanager
def serving(*flags: str, stderr: IO[str] | None = None) -> Iterator[int]:
    """A proxy that has answered, started with these flags of Python's; gives its process id."""
    command = [sys.executable, *flags, "-m", "tinkex_proxy", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, "--upstream.base-url", "http://127.0.0.1:1", "--log.level", "error"],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        # What is installed has its bytecode beside it, whatever this shell wants for itself.
        env={name: value for name, value in os.environ.items() if name != UNCOMPILED},
    )
    try:
        assert process.stdout is not None
        url = re.search(r"http://\S+", process.stdout.readline())
        assert url is not None
        with urllib.request.urlopen(f"{url[0]}/health/live", timeout=10) as answer:  # noqa: S310
            answer.read()
        yield process.pid
    finally:
        process.terminate()
        process.communicate(timeout=30)


def one_run() -> tuple[float, float]:
    """Seconds to the first answer, MiB resident after it."""
    began = time.perf_counter()
    with serving() as pid:
        took = time.perf_counter() - began
        status = Path(f"/proc/{pid}/status").read_text()
        resident = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert resident is not None
        return took, int(resident[1]) / 1024


def imports() -> Mapping[str, float]:
    """Milliseconds of each package's own modules, the median of some runs; the dearest first."""
    seen: list[Counter[str]] = []
    for _ in range(PROFILES):
        with tempfile.TemporaryFile("w+") as said:
            with serving("-X", "importtime", stderr=said):
                pass
            said.seek(0)
            spent = Counter[str]()
            for self_us, module in _LINE.findall(said.read()):
                package = module.partition(".")[0]
                spent["the standard library" if _is_standard(package) else package] += int(self_us)
        seen.append(spent)
    names = {name for spent in seen for name in spent}
    middles = {name: statistics.median(spent[name] for spent in seen) / 1e3 for name in names}
    return dict(sorted(middles.items(), key=lambda item: -item[1]))


def _is_standard(package: str) -> bool:
    known = sys.stdlib_module_names
    return package in known or package.startswith(("_", "encodings"))


def table(runs: Sequence[tuple[float, float]], spent: Mapping[str, float]) -> str:
    """As Markdown: how long and how large, and where the time goes."""
    lines = ["| what | median (least-most) | target | reached |", "| --- | --- | --- | --- |"]
    for name, unit, values, target in (
        ("`serve` is ready after", "s", [took for took, _ in runs], READY_S),
        ("resident when idle", "MiB", [resident for _, resident in runs], None),
    ):
        low, median, high = min(values), statistics.median(values), max(values)
        wanted = ("", "")
        if target is not None:
            wanted = (f"≤ {target:g} {unit}", "yes" if median <= target else "**no**")
        figures = f"{median:.2f} {unit} ({low:.2f}-{high:.2f})"
        lines.append(f"| {name} | {figures} | {' | '.join(wanted)} |")
    whole = sum(spent.values())
    lines += ["", "| imports of | ms | share |", "| --- | --- | --- |"]
    dearest = list(spent.items())[:SHOWN]
    lines += [f"| {name} | {ms:.0f} | {ms / whole:.0%} |" for name, ms in dearest]
    rest = whole - sum(ms for _, ms in dearest)
    lines.append(f"| {len(spent) - len(dearest)} others | {rest:.0f} | {rest / whole:.0%} |")
    return "\n".join(lines)


def main() -> None:
    """Print medians and ranges; with --write put them into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="note the figures")
    args = parser.parse_args()
    one_run()  # the first one compiles and warms the disk cache
    made = table([one_run() for _ in range(RUNS)], imports())
    print(made)
    if args.write:
        said = (
            f"## Start-up\n\n`make bench-startup`: {RUNS} starts of the real process, until "
            "`/health/live` has answered, with all compiled to bytecode, as pip and the image do "
            "it. Imports in Python's own record (`-X importtime`, which makes them slower by a "
            "third), of each package what its own modules take, median of "
            f"{PROFILES}.\n\n"
        )
        write_section("startup", said + made)


if __name__ == "__main__":
    main()
