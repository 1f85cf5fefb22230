"""What the demo shows: alive on a terminal, plain lines elsewhere.

A terminal gets a progress bar and colours. A pipe or a CI log gets neither control codes nor lines
that only make sense when they are overwritten.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import plotext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from tinkex_proxy.cli.demo.training import Step

__all__ = ["Screen"]

CURVE_SIZE: Final = (72, 14)
# Lines of progress in a log.
LOG_LINES: Final = 10


class Screen:
    """Writes to standard output.

    Args:
        console: where to; None takes standard output.
    """

    def __init__(self, console: Console | None = None) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr] # tests' streams
        self._console = console or Console(highlight=False)
        # rich would also believe FORCE_COLOR, which CI systems set.
        alive = self._console.file.isatty() and not self._console.is_dumb_terminal
        self.alive = alive

    def say(self, text: str = "", *, style: str = "") -> None:
        """Write a line as it is, however long: some are to be pasted."""
        if self.alive:
            self._console.print(Text(text, style=style), soft_wrap=True)
        else:
            print(text, file=self._console.file, flush=True)

    @contextlib.contextmanager
    def progress(self, steps: int) -> Iterator[Callable[[Step], None]]:
        """Show steps as they come; gives what is to be called with each."""
        if not self.alive:
            yield lambda step: self._log(step, steps)
            return
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss per token [bold]{task.fields[loss]}"),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task("training", total=steps, loss="")
            yield lambda step: bar.update(task, advance=1, loss=f"{step.loss:.3f}")

    def _log(self, step: Step, steps: int) -> None:
        if step.number in {1, steps} or step.number % max(1, steps // LOG_LINES) == 0:
            self.say(f"step {step.number:>3} of {steps}  loss per token {step.loss:.3f}")

    def curve(self, losses: Sequence[float]) -> None:
        """Draw the loss over the steps."""
        figure = plotext.figure
        figure.clear()
        figure.theme("colorless")
        figure.plot_size(*CURVE_SIZE)
        figure.title("loss per token, step by step")
        last = len(losses)
        figure.ruler("x").ticks(
            sorted({1, last // 4 or 1, last // 2 or 1, 3 * last // 4 or 1, last})
        )
        figure.draw(figure.signal(list(range(1, last + 1)), list(losses)).lines())
        drawn = plotext.uncolorize(figure.build())
        for line in drawn.splitlines():
            self.say(line.rstrip(), style="cyan")
