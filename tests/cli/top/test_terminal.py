"""The terminal under curses, with a screen that notes what it is told."""

import curses
import sys
from types import SimpleNamespace

import pytest

from tinkex_proxy.cli.top.picture import Piece
from tinkex_proxy.cli.top.terminal import Terminal


class Screen:
    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.waited: list[int] = []
        self.written: list[tuple[int, int, str, int]] = []

    def getmaxyx(self) -> tuple[int, int]:
        return 3, 10

    def timeout(self, wait_ms: int) -> None:
        self.waited.append(wait_ms)

    def getch(self) -> int:
        return self.codes.pop(0)

    def erase(self) -> None:
        self.written.clear()

    def insnstr(self, y: int, x: int, text: str, room: int, look: int) -> None:
        self.written.append((y, x, text[:room], look))

    def refresh(self) -> None:
        pass


@pytest.fixture
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curses, "curs_set", lambda _: 1)
    monkeypatch.setattr(curses, "has_colors", lambda: False)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))


@pytest.mark.usefixtures("_no_terminal")
def test_keys_have_names_whatever_a_terminal_sends_for_them() -> None:
    codes = [curses.KEY_UP, 10, 13, 27, 127, 8, ord("q"), -1, curses.KEY_RESIZE, 0x1B5]
    screen = Screen(*codes)
    terminal = Terminal(screen, colour=False)
    keys = [terminal.key(0.25) for _ in codes]
    assert keys == ["up", "enter", "enter", "escape", *["backspace"] * 2, "q", None, None, None]
    assert screen.waited == [250] * len(codes)


@pytest.mark.usefixtures("_no_terminal")
def test_a_terminal_that_is_gone_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers come at once, and nobody is there who could press a key."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: False))
    assert Terminal(Screen(-1), colour=False).key(0.25) == "q"


@pytest.mark.usefixtures("_no_terminal")
def test_a_moment_that_is_past_is_not_waited_for() -> None:
    screen = Screen(-1)
    assert Terminal(screen, colour=False).key(-3) is None
    assert screen.waited == [0]


@pytest.mark.usefixtures("_no_terminal")
def test_lines_are_drawn_within_the_screen() -> None:
    """The corner at the lower right takes nothing: the screen would scroll."""
    screen = Screen()
    line = (Piece("12345"), Piece("6789012345", "bad"), Piece("never"))
    Terminal(screen, colour=False).draw([line] * 5)
    texts = [(y, x, text) for y, x, text, _ in screen.written]
    assert texts == [
        *((0, 0, "12345"), (0, 5, "67890")),
        *((1, 0, "12345"), (1, 5, "67890")),
        *((2, 0, "12345"), (2, 5, "6789")),
    ]
    assert screen.written[1][3] == curses.A_BOLD
