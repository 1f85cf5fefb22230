"""On a terminal: a real proxy, a pty, and an emulator that knows what the screen shows."""

import signal
from pathlib import Path

import pytest

from tests.terminal import on_terminal


def test_it_shows_a_proxy_and_obeys_keys(proxy_url: str) -> None:
    with on_terminal("top", "--url", proxy_url) as terminal:
        text = terminal.until(lambda text: "q quit" in text)
        assert text.startswith(" tinkex-proxy -> http://127.0.0.1:9")
        assert "NOT READY" in text
        assert "LANE, by name" in text
        terminal.press("s")
        terminal.until(lambda text: "LANE, by waiting" in text)
        terminal.press("/nothing like it\n")
        terminal.until(lambda text: "no breaker matches" in text and "[filter: nothing" in text)
        terminal.press("\x1b")
        terminal.until(lambda text: "127.0.0.1-9-" in text)
        terminal.press("p")
        terminal.until(lambda text: "PAUSED" in text and "p go on" in text)
        terminal.press("q")
        assert terminal.ended() == 0


def test_it_is_alive(proxy_url: str) -> None:
    """The clock at the top goes on without a key, and stands while it is paused."""
    with on_terminal("top", "--url", proxy_url) as terminal:
        first = terminal.until(lambda text: "q quit" in text).splitlines()[0]
        terminal.until(lambda text: text.splitlines()[0] != first)


def test_it_follows_the_size_of_the_terminal(proxy_url: str) -> None:
    with on_terminal("top", "--url", proxy_url, columns=100, lines=40) as terminal:
        terminal.until(lambda text: "q quit" in text.splitlines()[39])
        terminal.resize(60, 15)
        terminal.until(lambda text: "q quit" in text.splitlines()[14])


def test_a_signal_to_end_gives_the_terminal_back(proxy_url: str) -> None:
    """By Python's handler (its status tells): that of curses runs wherever curses was itself."""
    with on_terminal("top", "--url", proxy_url) as terminal:
        terminal.until(lambda text: "q quit" in text)
        terminal.popen.terminate()
        assert terminal.ended() == 128 + signal.SIGTERM
        assert terminal.screen.cursor.hidden is False


@pytest.mark.parametrize(("variable", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_left_out_where_they_are_not_wanted(
    proxy_url: str, variable: dict[str, str], coloured: bool
) -> None:
    with on_terminal("top", "--url", proxy_url, **variable) as terminal:
        terminal.until(lambda text: "q quit" in text)
        assert (terminal.colours != {"default"}) is coloured


def test_it_works_over_a_unix_socket(start, tmp_path: Path) -> None:
    path = str(tmp_path / "p.sock")
    process = start("serve", "--uds", path, "--upstream.base-url", "http://127.0.0.1:9")
    assert path in process.stdout.readline()
    with on_terminal("top", "--uds", path) as terminal:
        terminal.until(lambda text: "q quit" in text)


def test_a_proxy_that_goes_away_is_told_of_and_found_again(start, tmp_path: Path) -> None:
    path = str(tmp_path / "p.sock")
    serve = ("serve", "--uds", path, "--upstream.base-url", "http://127.0.0.1:9")
    process = start(*serve)
    process.stdout.readline()
    with on_terminal("top", "--uds", path) as terminal:
        terminal.until(lambda text: "NOT READY" in text)
        process.terminate()
        process.wait()
        terminal.until(lambda text: "NO ANSWER" in text and "no proxy answers on" in text)
        start(*serve).stdout.readline()
        terminal.until(lambda text: "NO ANSWER" not in text and "NOT READY" in text)


def test_without_a_terminal_it_says_what_does_the_same(run, proxy_url: str) -> None:
    status, _, errors = run("top", "--url", proxy_url)
    assert status == 69
    assert "top needs a terminal; `tinkex-proxy status` tells the same once" in errors


def test_nobody_there_is_told_plainly(proxy_url: str) -> None:
    with on_terminal("top", "--url", "http://127.0.0.1:9") as terminal:
        terminal.until(lambda text: "no proxy answers on http://127.0.0.1:9" in text)
        assert terminal.ended() == 69


def test_a_terminal_that_can_nothing_is_told_of(proxy_url: str) -> None:
    with on_terminal("top", "--url", proxy_url, TERM="dumb") as terminal:
        terminal.until(lambda text: "this terminal cannot show top" in text)
        assert terminal.ended() == 69
