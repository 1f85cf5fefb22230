"""`make bench`: ours beside nginx, HAProxy, LiteLLM, an afternoon's work, and its floor."""

import argparse
import signal
import sys
from collections.abc import Sequence

from tests.bench.compare import running
from tests.bench.compare.figures import Figures
from tests.bench.compare.held import held
from tests.bench.compare.machine import machine, versions
from tests.bench.compare.page import load_table, section, target_rows
from tests.bench.compare.pictures import draw
from tests.bench.compare.rounds import ALL, BY_LOAD, LOADS, Plan, measure
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


def main(arguments: Sequence[str]) -> int:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each [5]")
    parser.add_argument("--seconds", type=int, default=3, help="length of a turn [3]")
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(ALL)} [all]")
    parser.add_argument("--loads", metavar="NAMES", help=f"of {', '.join(BY_LOAD)} [all]")
    parser.add_argument("--write", action="store_true", help=f"put all into docs/{PAGE.name}")
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    running.more_files()
    loads = [BY_LOAD[name] for name in names([load.name for load in LOADS], chosen.loads)]
    plan = Plan(loads, names(ALL, chosen.only), chosen.rounds, chosen.seconds)
    where = machine()
    seen = measure(plan, lambda line: print(line, flush=True))
    figures, waiting = Figures(seen), held() if chosen.only is None else []
    targets = judged(figures, waiting)
    print(target_rows(targets))
    for load in loads:
        print(f"\n{load.name}\n{load_table(figures, load.name)}")
    if chosen.write:
        shown = [load.name for load in loads]
        pictures = draw(figures, shown, IMAGES)
        told = {"machine": where, "versions": versions(), "pictures": pictures}
        told |= {"rounds": plan.rounds, "seconds": plan.seconds}
        write_section("compare", section(figures, shown, targets, **told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
