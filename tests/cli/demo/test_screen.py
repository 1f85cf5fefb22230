import io

import pytest
from rich.console import Console

from tinkex_proxy.cli.demo.screen import Screen
from tinkex_proxy.cli.demo.training import Step

ESCAPE = "\x1b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(term: str = "xterm-256color") -> tuple[Screen, io.StringIO]:
    out = Terminal()
    console = Console(
        file=out, width=80, force_terminal=True, highlight=False, _environ={"TERM": term}
    )
    return Screen(console), out


def in_a_log() -> tuple[Screen, io.StringIO]:
    """A CI log, in a system that forces colours on programs that would obey."""
    out = io.StringIO()
    return Screen(Console(file=out, width=80, _environ={"FORCE_COLOR": "1"})), out


def run_of(screen: Screen, steps: int) -> None:
    with screen.progress(steps) as show:
        for number in range(1, steps + 1):
            show(Step(number, 6.0 / number, calls=4, requests=1))


def test_a_terminal_gets_a_bar_with_the_loss_and_colours() -> None:
    screen, out = on_a_terminal()
    run_of(screen, 5)
    screen.say("done", style="green")
    assert ESCAPE in out.getvalue()
    assert "5/5" in out.getvalue()
    assert "1.200" in out.getvalue()


@pytest.mark.parametrize("made", [in_a_log, lambda: on_a_terminal("dumb")])
def test_elsewhere_there_are_lines_and_no_control_codes(made) -> None:
    """A log shows the loss falling; nothing in it was meant to be overwritten."""
    screen, out = made()
    run_of(screen, 40)
    screen.curve([6.0, 3.0, 1.0])
    screen.say("done", style="green")
    text = out.getvalue()
    assert ESCAPE not in text
    assert "\r" not in text
    lines = [line for line in text.splitlines() if line.startswith("step")]
    assert lines[0] == "step   1 of 40  loss per token 6.000"
    assert lines[-1] == "step  40 of 40  loss per token 0.150"
    assert len(lines) <= 12


def test_a_line_to_paste_is_not_broken() -> None:
    """However narrow the terminal is."""
    line = "curl " + "x" * 500
    screen, out = on_a_terminal()
    screen.say(line)
    assert line in out.getvalue().replace(ESCAPE + "[0m", "")


def test_markup_in_a_sample_is_text() -> None:
    screen, out = on_a_terminal()
    screen.say("[bold]x[/bold]")
    assert "[bold]x[/bold]" in out.getvalue()


@pytest.mark.parametrize("steps", [1, 2, 3, 60])
def test_the_curve_falls_from_the_top_left(steps: int) -> None:
    screen, out = in_a_log()
    screen.curve([float(steps - number) for number in range(steps)])
    lines = out.getvalue().splitlines()
    assert "loss per token" in lines[0]
    assert str(steps) in lines[-1]
    assert all(len(line) <= 80 for line in lines)


def test_a_stream_that_cannot_be_set_up_is_left_alone(monkeypatch) -> None:
    """Embedded interpreters and tests give standard output away."""
    monkeypatch.setattr("sys.stdout", io.StringIO())
    screen = Screen()
    screen.say("x")
    assert screen.alive is False
