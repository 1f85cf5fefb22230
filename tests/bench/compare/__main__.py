"""`make bench`: ours beside nginx, HAProxy, LiteLLM, an afternoon's work, and its floor."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.compare import running
from tests.bench.compare.figures import Figures
from tests.bench.compare.held import held
from tests.bench.compare.machine import machine, versions
from tests.bench.compare.page import load_table, section, target_rows
from tests.bench.compare.pictures import draw
from tests.bench.compare.rounds import ALL, BY_LOAD, Plan, measure
from tests.bench.compare.runs import LAST, Run, keep, kept
from tests.bench.compare.targets import judged
from tests.bench.report import IMAGES, PAGE, write_section


def names(known: Sequence[str], given: str | None) -> list[str]:
    """Those that are asked for; all when none is."""
    if given is None:
        return list(known)
    asked = [name.strip() for name in given.split(",")]
    if unknown := set(asked) - set(known):
        sys.exit(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    return asked


def measured(chosen: argparse.Namespace) -> Run:
    """Measure what was asked for."""
    running.more_files()
    loads = names(list(BY_LOAD), chosen.loads)
    where, which = machine(), versions()
    waiting = held() if chosen.only is None else []
    plan = Plan(
        [BY_LOAD[name] for name in loads], names(ALL, chosen.only), chosen.rounds, chosen.seconds
    )
    seen = measure(plan, lambda line: print(line, flush=True))
    return Run(where, which, loads, plan.rounds, plan.seconds, waiting, seen)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each [5]")
    parser.add_argument("--seconds", type=int, default=3, help="length of a turn [3]")
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(ALL)} [all]")
    parser.add_argument("--loads", metavar="NAMES", help=f"of {', '.join(BY_LOAD)} [all]")
    parser.add_argument("--write", action="store_true", help=f"put all into docs/{PAGE.name}")
    parser.add_argument("--again", type=Path, metavar="FILE", help=f"tell a run anew; {LAST}")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    try:
        run = measured(chosen) if chosen.again is None else kept(chosen.again)
    except KeyboardInterrupt:
        return 130
    if chosen.again is None:
        keep(run, LAST)
    tell(run, write=chosen.write)
    return 0


def tell(run: Run, *, write: bool) -> None:
    """Print a run's tables, and put them and its pictures into the docs if asked to."""
    figures = Figures(run.seen)
    targets = judged(figures, run.held)
    print(target_rows(targets))
    for load in run.loads:
        print(f"\n{load}\n{load_table(figures, load)}")
    if write:
        pictures = draw(figures, run.loads, IMAGES)
        write_section("compare", section(run, figures, targets, pictures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
