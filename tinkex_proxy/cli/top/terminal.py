"""The terminal of `top`: draws lines, reads keys, follows its size."""

import curses
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from tinkex_proxy.cli.top.picture import Line

__all__ = ["Terminal"]

_KEYS: Final[Mapping[int, str]] = {
    curses.KEY_UP: "up",
    curses.KEY_DOWN: "down",
    curses.KEY_ENTER: "enter",
    curses.KEY_BACKSPACE: "backspace",
    8: "backspace",
    10: "enter",
    13: "enter",
    27: "escape",
    127: "backspace",
}
# style -> (colour, attribute); without colour the attribute and the word have to do
_STYLES: Final[Mapping[str, tuple[int, int]]] = {
    "plain": (-1, curses.A_NORMAL),
    "title": (-1, curses.A_BOLD),
    "dim": (-1, curses.A_DIM),
    "good": (curses.COLOR_GREEN, curses.A_NORMAL),
    "notice": (curses.COLOR_YELLOW, curses.A_BOLD),
    "bad": (curses.COLOR_RED, curses.A_BOLD),
    "bar": (-1, curses.A_REVERSE),
    "alarm": (curses.COLOR_RED, curses.A_REVERSE | curses.A_BOLD),
}


class Terminal:
    """A screen under curses.

    Args:
        screen: what `curses.wrapper` gives.
        colour: whether there may be colours.
    """

    def __init__(self, screen: curses.window, *, colour: bool) -> None:
        self._screen = screen
        self._looks = {name: look for name, (_, look) in _STYLES.items()}
        curses.curs_set(0)
        if curses.has_colors():
            curses.use_default_colors()  # without it even plain text is sent as white on black
            if colour:
                self._colour()

    def _colour(self) -> None:
        for number, (name, (colour, look)) in enumerate(_STYLES.items(), 1):
            curses.init_pair(number, colour, -1)
            self._looks[name] = curses.color_pair(number) | look

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        lines, columns = self._screen.getmaxyx()
        return columns, lines

    def key(self, wait_s: float) -> str | None:
        """The next key by its name; None when none came, or the terminal has another size.

        A terminal that is gone cannot say so any more, and asking it takes no time: that is `q`.
        """
        self._screen.timeout(max(0, round(wait_s * 1000)))
        code = self._screen.getch()
        if code == curses.ERR and not sys.stdin.isatty():
            return "q"
        if code in _KEYS:
            return _KEYS[code]
        return chr(code) if 32 <= code < 127 else None

    def draw(self, lines: Sequence[Line]) -> None:
        """Show these lines."""
        columns, rows = self.size
        self._screen.erase()
        for y, line in enumerate(lines[:rows]):
            x = 0
            for piece in line:
                # The corner at the lower right takes no character without scrolling.
                room = columns - x - (y == rows - 1)
                self._screen.insnstr(y, x, piece.text, room, self._looks[piece.style])
                x += len(piece.text)
                if x >= columns:
                    break
        self._screen.refresh()
