"""Change the breaker's and the batcher's code in one place after another: do tests fail?

Run by `make mutants`. mutmut makes the mutants and runs the tests of each; this bounds it in time,
holds every survivor against `survivors.toml`, where it is told why no test can or need tell it from
the original, and writes `docs/mutation.md`. It fails where a survivor has no reason there, a reason
no survivor, or time ran out: a second run goes on where the first one stopped.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "mutation.md"
REASONS = Path(__file__).with_name("survivors.toml")
MUTMUT = Path(sys.executable).with_name("mutmut")
# A mutant that hangs is given up. So is one on a machine that does: it gets a second chance.
CAUGHT = frozenset({"killed", "timeout"})
CERTAIN = frozenset({"killed", "survived"})

HEAD = """# Mutation testing

A mutant is the code with one change: `<` for `<=`, `+` for `-`, another constant, an argument left
out. A test that fails has caught it. `make mutants` makes every mutant of these modules with
[mutmut](https://mutmut.readthedocs.io), runs the tests of `tests/core` that reach it, and writes
this page. It is not part of `make test`: the first run takes long, and `MINUTES=` bounds it.
"""
TAIL = """
## Survivors

What no test catches, and why: each reason is in `tests/mutation/survivors.toml`, and the command
fails on a survivor that has none.
"""


@dataclass(frozen=True, order=True)
class Survivor:
    """A mutant that no test caught: where it is, the line as it was and as it became."""

    where: str
    was: str
    became: str


def place_of(name: str) -> str:
    """`core.window Window.clear` for `tinkex_proxy.core.window.xǁWindowǁclear__mutmut_9`."""
    module, _, mangled = name.removeprefix("tinkex_proxy.").rpartition(".")
    function = mangled.rpartition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ")
    return f"{module} {function.replace('ǁ', '.')}"


def run_mutants(until: float, *names: str) -> bool:
    """Run these, or what has not been run; tells whether there was time enough."""
    environment = {**os.environ, "HYPOTHESIS_PROFILE": "few"}
    with subprocess.Popen(
        [MUTMUT, "run", "--max-children", str(os.cpu_count() or 1), *names],
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    ) as running:
        try:
            running.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGTERM)
            return False
    return True


def told(*command: str) -> str:
    """What mutmut says."""
    ran = subprocess.run([MUTMUT, *command], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout


def results() -> dict[str, str]:
    """Every mutant by its name, and what became of it."""
    lines = re.findall(r"^ +(\S+): (.+)$", told("results", "--all", "true"), re.MULTILINE)
    return dict(lines)


def survivor(name: str) -> Survivor:
    """What one mutant changed."""
    lines = told("show", name).splitlines()

    def side(sign: str) -> str:
        changed = [line[1:] for line in lines if line[:1] == sign and line[:3] != sign * 3]
        return " ".join(line.strip() for line in changed)

    return Survivor(place_of(name), side("-"), side("+"))


def reasons() -> dict[Survivor, str]:
    """Why each known survivor is one."""
    told_of = tomllib.loads(REASONS.read_text())["survivor"]
    return {Survivor(one["where"], one["was"], one["became"]): one["why"] for one in told_of}


def page(found: dict[str, str], survivors: list[Survivor], known: dict[Survivor, str]) -> str:
    """The whole page."""
    sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, status in found.items():
        module = place_of(name).partition(" ")[0]
        sums[module]["caught" if status in CAUGHT else "left"] += 1
    rows = ["| module | mutants | caught | survived |", "|---|---|---|---|"]
    for module, count in sorted(sums.items()):
        rows.append(f"| `{module}` | {count.total()} | {count['caught']} | {count['left']} |")
    everything = sum(sums.values(), Counter())
    caught, left = everything["caught"], everything["left"]
    rows.append(f"| all | {everything.total()} | {caught} | {left} |")
    listed = ["| where | line | became | why it survives |", "|---|---|---|---|"]
    for one in sorted(survivors):
        why = known.get(one, "**no reason yet**")
        listed.append(f"| `{one.where}` | {code(one.was)} | {code(one.became)} | {why} |")
    return "\n".join([HEAD, *rows, TAIL, *listed, ""])


def code(line: str) -> str:
    line = line.partition("  # ")[0]
    return f"`{line}`".replace("|", "\\|") if line else "(nothing)"


def main() -> int:
    """Run, write the page, say what is wrong."""
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--anew", action="store_true", help="forget what was run before")
    chosen = parser.parse_args()
    if chosen.anew:
        shutil.rmtree(ROOT / "mutants", ignore_errors=True)
    until = time.monotonic() + chosen.minutes * 60
    enough = run_mutants(until)
    doubtful = [name for name, status in results().items() if status not in CERTAIN]
    if not enough or (doubtful and not run_mutants(until, *doubtful)):
        print(f"stopped after {chosen.minutes:g} minutes; the next run goes on from here")
        return 1
    found = results()
    survivors = [survivor(name) for name, status in found.items() if status not in CAUGHT]
    known = reasons()
    PAGE.write_text(page(found, survivors, known))
    unexplained = sorted(set(survivors) - set(known))
    gone = sorted(set(known) - set(survivors))
    for one in unexplained:
        print(f"survived without a reason: {one.where}\n  - {one.was}\n  + {one.became}")
    for one in gone:
        print(f"has a reason and did not survive: {one.where}\n  - {one.was}\n  + {one.became}")
    print(f"{len(found)} mutants, {len(survivors)} survivors: {PAGE.relative_to(ROOT)}")
    return 1 if unexplained or gone else 0


if __name__ == "__main__":
    sys.exit(main())
