"""The command `top`: asks once a second, draws, and obeys keys."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tinkex_proxy.cli.exits import OK, CommandError
from tinkex_proxy.cli.options import Commands
from tinkex_proxy.cli.place import Place, add_place, connected, place_of, reported
from tinkex_proxy.config import wants_colour

if TYPE_CHECKING:
    import httpx

    from tinkex_proxy.cli.told import Told
    from tinkex_proxy.cli.top.terminal import Terminal

__all__ = ["add"]

EVERY_S: Final = 1.0
# A proxy that takes longer is told of as silent, and keys are not kept waiting.
PATIENCE_S: Final = 2.0


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("top", help="watch a running proxy", allow_abbrev=False)
    add_place(parser)
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    place = place_of(chosen)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("top needs a terminal; `tinkex-proxy status` tells the same once")
    try:
        import curses  # noqa: PLC0415 - no part of Python on every platform

        from tinkex_proxy.cli.top.terminal import Terminal  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise CommandError(f"top needs {error.name}, which this Python does not have") from error
    with connected(place, patience_s=PATIENCE_S) as client:
        told = _ask(client, place)
        # Curses would give the terminal back inside of the signal's handler, wherever it was itself
        # then; where there is a handler, it installs none.
        signals: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))

        def watch(screen: "curses.window") -> None:
            _watch(Terminal(screen, colour=wants_colour()), client, place, told, signals)

        try:
            curses.wrapper(watch)
        except curses.error as error:
            raise CommandError(f"this terminal cannot show top: {error}") from error
    return 128 + signals[0] if signals else OK  # as a shell says what a signal has ended


def _ask(client: "httpx.Client", place: Place) -> "Told":
    """What there is.

    Raises:
        CommandError: nothing came.
    """
    from tinkex_proxy.cli.told import read  # noqa: PLC0415 - msgspec, which not every command needs

    with reported(place):
        return read(client.get("/dashboard").raise_for_status().content)


def _watch(
    terminal: "Terminal",
    client: "httpx.Client",
    place: Place,
    told: "Told",
    signals: Sequence[int],
) -> None:
    """Show it until somebody has had enough, or a signal has come."""
    from tinkex_proxy.cli.top.picture import picture  # noqa: PLC0415 - see above
    from tinkex_proxy.cli.top.view import View, pressed, shown  # noqa: PLC0415

    view, silence = View(), ""
    due = time.monotonic() + EVERY_S
    while not (view.over or signals):
        columns, lines = terminal.size
        terminal.draw(picture(told, view, width=columns, height=lines, silence=silence))
        key = terminal.key(due - time.monotonic())
        if key is not None:
            view = pressed(view, key, lanes=len(shown(view, told.lanes)))
        if time.monotonic() < due:
            continue
        due = time.monotonic() + EVERY_S
        if not view.paused:
            try:
                told, silence = _ask(client, place), ""
            except CommandError as error:
                silence = str(error)
