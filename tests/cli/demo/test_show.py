import os
import shutil
import signal
import socket
import subprocess
import threading

import httpx
import psutil
import pytest

from tinkex_proxy.cli.demo import family as families
from tinkex_proxy.cli.demo import show
from tinkex_proxy.cli.exits import CommandError


def until(process: "subprocess.Popen[str]", start: str) -> list[str]:
    """Read its lines up to one that begins with `start`."""
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if line.startswith(start):
            return lines
    pytest.fail(f"{start!r} never came:\n" + "\n".join(lines) + process.stderr.read())


def family_of(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def assert_gone(family: list[psutil.Process]) -> None:
    assert len(family) == 2
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []


def test_once_trains_shows_and_succeeds(run) -> None:
    """Readable in a CI log; every line of a newcomer's first minute."""
    status, out, errors = run("demo", "--once", "--steps", "25", "--port", "0")
    assert status == 0, out + errors
    assert "\x1b" not in out
    for part in ("sandbox  http://", "not the Tinker service", "before   Four", "after    Four"):
        assert part in out
    assert "loss per token, step by step" in out
    assert "sharing  100 forward_backward calls of 4 concurrent callers" in out
    requests = int(out.partition("went upstream as ")[2].split()[0])
    assert requests < 100, "no two of a hundred calls shared a request"


def test_once_fails_when_the_loss_has_not_fallen_to_half(run) -> None:
    status, out, _ = run("demo", "--once", "--steps", "1", "--port", "0")
    assert status == 1
    assert "it has NOT fallen to half" in out


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_it_stays_up_for_pasting_and_ends_on_ctrl_c(start) -> None:
    """The curl lines work as they stand, for the model that was just trained."""
    process = start("demo", "--steps", "3", "--port", "0")
    lines = until(process, "Ctrl-C ends it.")
    pasted = [line for line in lines if line.startswith("curl ")]
    answers = [
        subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
        for line in pasted
    ]
    expected = ('{"loss":', '{"metrics":', '{"sequences":', '{"lanes":', '{"breakers":')
    assert len(answers) == len(expected)
    for answer, beginning in zip(answers, expected, strict=True):
        assert answer.startswith(beginning), answer
    family = family_of(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert_gone(family)


def test_a_signal_in_the_middle_ends_all_three(start) -> None:
    process = start("demo", "--steps", "100000", "--port", "0")
    until(process, "step   1 of")
    family = family_of(process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert_gone(family)


@pytest.mark.parametrize(("which", "name"), [("serve", "proxy"), ("sandbox", "sandbox")])
def test_a_child_that_dies_in_the_training_is_named(start, which: str, name: str) -> None:
    process = start("demo", "--steps", "100000", "--port", "0")
    until(process, "step   1 of")
    family = family_of(process)
    next(child for child in family if which in child.cmdline()).kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"the {name} ended with status -9" in errors
    assert_gone(family)


def test_a_child_that_dies_afterwards_is_named(start) -> None:
    process = start("demo", "--steps", "1", "--port", "0")
    until(process, "Ctrl-C ends it.")
    family = family_of(process)
    family[0].kill()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "ended with status -9" in errors
    assert_gone(family)


class Lines:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str = "", *, style: str = "") -> None:
        self.said.append(text)


def test_a_signal_is_heard_though_nobody_reads_what_is_said(monkeypatch) -> None:
    """As where a pipe is full."""
    monkeypatch.setattr(families, "WORK_TIMEOUT_S", 0.01)
    read = threading.Event()

    class Full:
        def say(self, text: str = "", *, style: str = "") -> None:
            read.wait()

    def said() -> None:
        with families.Family() as children:
            os.kill(os.getpid(), signal.SIGTERM)
            show._Saying(children, Full())("text")

    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        said()
    read.set()


def test_a_taken_port_is_said_and_another_one_used(monkeypatch) -> None:
    screen = Lines()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(show, "USUAL_PORT", taken.getsockname()[1])
        assert show._port(screen.say, None) == 0
    assert "is taken" in screen.said[0]
    assert show._port(screen.say, None) == show.USUAL_PORT
    assert show._port(screen.say, 7) == 7


def test_a_proxy_that_does_not_answer_is_told(monkeypatch) -> None:
    monkeypatch.setattr(show, "DEATH_SHOWS_S", 0.0)

    def reset(*_: object) -> bool:
        raise httpx.ReadError("reset")

    monkeypatch.setattr(show, "_train", reset)
    with pytest.raises(CommandError, match="the proxy does not answer: ReadError"):
        show.run(steps=1, once=True, port=0)


@pytest.mark.parametrize("steps", ["0", "-1", "x"])
def test_steps_are_counted_from_one(run, steps: str) -> None:
    status, _, errors = run("demo", f"--steps={steps}")
    assert status == 2
    assert "whole number from 1" in errors
