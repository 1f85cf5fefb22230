"""How many instructions a call takes of a proxy's process. Run by `make bench-instructions`.

The clock of a machine that others use too says little about a few per cent; how often the processor
was told something says the same on each. Each contestant runs in valgrind (callgrind), twice, and
is called by one caller, some times and then many: what both have in common, its start and its end,
goes by taking one from the other. What the kernel does for it is not in it: system calls, copies.
"""

import argparse
import http.client
import os
import re
import signal
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.compare import running
from tests.bench.compare.contestants import (
    BY_NAME,
    FLOOR,
    FLOOR_PROXY,
    NAIVE,
    OUR_SAMPLE,
    OUR_TRAINING,
    OURS,
    Contestant,
)
from tests.bench.report import write_section
from tests.e2e.environments import of_debian

NAMES = (FLOOR, FLOOR_PROXY, OURS, OUR_SAMPLE, OUR_TRAINING, NAIVE)
# The first calls open connections and let Python find its short ways.
FEW, MANY = 300, 1300
# Under valgrind everything takes fifty times as long.
ENDS_S = 300.0
_COLLECTED = re.compile(rb"Collected : (\d+)")


def valgrind(folder: Path) -> list[str]:
    """The words before a command that have its instructions counted, into `folder`."""
    program = of_debian("usr/bin/valgrind", "valgrind")
    parts = program.parent / "usr/libexec/valgrind"  # where it is unpacked, and not the machine's
    found = [f"VALGRIND_LIB={parts}"] if parts.exists() else []
    # It does not know the kernel's rings, by which uvloop would do without some system calls.
    told = ["env", "UV_USE_IO_URING=0", "PYTHONHASHSEED=0", *found, str(program)]
    files = [f"--log-file={folder}/log", f"--callgrind-out-file={folder}/out"]
    # Some commands begin with a program that sets a variable and becomes the next one.
    return [*told, "--tool=callgrind", "--trace-children=yes", *files]


def counted(contestant: Contestant, calls: int, sinks: running.Sinks, folder: Path) -> int:
    """The instructions of a contestant's process from its start to its end.

    Args:
        contestant: who.
        calls: how often it is called.
        sinks: what it stands before.
        folder: where it may write.
    """
    folder.mkdir()
    start = contestant.command
    if start is None:
        raise ValueError(f"{contestant.name} is no process")

    def command(place: Path, port: int, sink: str) -> list[str]:
        return [*valgrind(folder), *start(place, port, sink)]

    watched = replace(contestant, command=command)
    with running.contestant(watched, sinks.of(contestant).url, folder) as up:
        running.ready(up, patience_s=ENDS_S)
        call(up, calls)
        os.kill(up.tree.pid, signal.SIGTERM)
        os.waitid(os.P_PID, up.tree.pid, os.WEXITED | os.WNOWAIT)
    said = (folder / "log").read_bytes()
    found: list[bytes] = _COLLECTED.findall(said)
    if not found:
        raise RuntimeError(f"valgrind has not counted: {said.decode()}")
    return int(found[-1])


def call(up: running.Up, calls: int) -> None:
    """Make a contestant's call so many times, one after the other, on one connection."""
    where, small = urlsplit(up.url), up.contestant.small
    connection = http.client.HTTPConnection(where.netloc, timeout=ENDS_S)
    for _ in range(calls):
        headers = {"content-type": small.content_type}
        connection.request("POST", small.path, small.body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{up.contestant.name} answered {answer.status}: {said!r}")
    connection.close()


def measure(names: Sequence[str]) -> dict[str, float]:
    """The instructions of a call, by contestant; both runs of one are at the same time."""
    each: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as both:
        folder = Path(place)
        with running.sinks(folder, large=False) as sinks:
            for number, contestant in enumerate(BY_NAME[name] for name in names):
                few, many = both.map(
                    lambda calls, one=contestant, at=number: counted(
                        one, calls, sinks, folder / f"{at}-{calls}"
                    ),
                    (FEW, MANY),
                )
                each[contestant.name] = (many - few) / (MANY - FEW)
                print(
                    f"{contestant.name:<26} {each[contestant.name] / 1000:8.0f} thousand",
                    flush=True,
                )
    return each


def section(each: Mapping[str, float]) -> str:
    """What the page says of it."""
    what = (
        "`make bench-instructions`: counted by valgrind, so that other work on the machine does "
        "not show. One caller, one call after the other; of the contestant's process alone, "
        "without the kernel's part. What each is stands above; the empty proxy is "
        f"`{FLOOR_PROXY}`."
    )
    lines = ["## Instructions of a call", "", what, ""]
    lines += [
        "| contestant | thousand instructions a call | of the empty proxy's |",
        "| --- | --- | --- |",
    ]
    floor = each[FLOOR_PROXY]
    lines += [
        f"| {name} | {number / 1000:,.0f} | {number / floor:.2f} |"
        for name, number in sorted(each.items(), key=lambda item: item[1])
    ]
    return "\n".join(lines)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help="contestants; all without any")
    parser.add_argument("--write", action="store_true", help="note the figures")
    chosen = parser.parse_args()
    if chosen.write and set(chosen.names) != set(NAMES):
        parser.error("--write notes the figures of all: name none")
    each = measure(chosen.names)
    if chosen.write:
        write_section("instructions", section(each))


if __name__ == "__main__":
    main()
