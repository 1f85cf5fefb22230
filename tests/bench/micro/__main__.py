"""The parts of a call, each by itself, against what it may cost. Run by `make bench-micro`.

pytest-benchmark calibrates and times them (the tests beside this file). A round's time is divided
by what it does: megabytes, calls, updates. It is processor time, for others use the machine too;
the least of all rounds is what the code takes when nobody else is in the caches.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.bench.report import write_section

HERE = Path(__file__).parent
NAMES = {
    "test_merge_protobuf_to_protobuf": "merge, protobuf → protobuf",
    "test_merge_json_to_json": "merge, JSON → JSON (spliced)",
    "test_merge_plain_json_to_json": "merge, JSON → JSON (each number checked)",
    "test_merge_json_to_protobuf": "merge, JSON → protobuf",
    "test_split_protobuf_to_protobuf": "split, protobuf → protobuf",
    "test_split_json_to_json": "split, JSON → JSON",
    "test_split_protobuf_to_json": "split, protobuf → JSON (per MB of JSON)",
    "test_batch_assembly": "batch of 10 small calls, from bodies to request",
    "test_gate": "breaker gate, permit and outcome",
    "test_metric_update": "one metric update",
    "test_lane": "lane, of each call in a batch of 10",
}
IN_UNIT = {"ms": 1e3, "us": 1e6}


def run() -> list[Mapping[str, object]]:
    """Run all; pytest's own output is shown."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "figures.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "pytest_benchmark.plugin"]
        options = ["--benchmark-json", str(out), "--benchmark-warmup", "on", str(HERE)]
        options += ["--benchmark-timer", "time.process_time"]
        subprocess.run([*command, *options, "-p", "no:cacheprovider", "-p", "no:xdist"], check=True)
        return json.loads(out.read_text())["benchmarks"]


def rows(measured: Iterable[Mapping[str, object]]) -> list[tuple[str, ...]]:
    """The cells of the table."""
    made = []
    for one in measured:
        said, stats = one["extra_info"], one["stats"]
        factor = IN_UNIT[said["unit"].split()[0]] / said["units"]
        median, least, target = stats["median"] * factor, stats["min"] * factor, said["target"]
        unit = said["unit"].replace("us", "µs")
        verdict = "" if target is None else "yes" if median <= target else "**no**"
        wanted = "" if target is None else f"≤ {target:g}"
        made.append((NAMES[one["name"]], f"{median:.3g}", f"{least:.3g}", unit, wanted, verdict))
    order = list(NAMES.values())
    return sorted(made, key=lambda row: order.index(row[0]))


def table(cells: Iterable[tuple[str, ...]]) -> str:
    """As Markdown."""
    head = ("what", "median", "least", "unit", "target", "reached")
    lines = [head, ("---",) * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print the table; with --write put it into docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="note the figures")
    args = parser.parse_args()
    made = table(rows(run()))
    print(made)
    if args.write:
        said = (
            "## The parts of a call\n\n`make bench-micro`: each part by itself, on one thread, in "
            "processor time. "
            "8 callers send 12 datums of 2,048 tokens each (0.4 MB of JSON a caller, 3.2 MB in "
            "all); MB are of what is read.\n\n"
        )
        write_section("micro", said + made)


if __name__ == "__main__":
    main()
