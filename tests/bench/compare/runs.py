"""A whole run, kept in a file: what took half an hour can be told anew without being done again."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench.compare.held import Held
from tests.bench.compare.rounds import Seen

LAST = Path(__file__).parents[3] / "build" / "compare.json"


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        machine: where it was.
        versions: of everything that took part.
        loads: their names, in order.
        rounds: turns of each contestant.
        seconds: length of a turn.
        held: memory of calls that wait.
        seen: all turns.
    """

    machine: str
    versions: str
    loads: list[str]
    rounds: int
    seconds: int
    held: list[Held]
    seen: Seen


def keep(run: Run, file: Path) -> None:
    """Write a run to a file."""
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(run)))


def kept(file: Path) -> Run:
    """The run in a file."""
    return msgspec.json.decode(file.read_bytes(), type=Run)
