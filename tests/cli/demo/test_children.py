import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tinkex_proxy.cli.demo import children
from tinkex_proxy.cli.demo.children import Child, Family
from tinkex_proxy.cli.exits import CommandError


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Children that run a script instead of the command line."""

    def child(code: str, **more: str) -> Child:
        path = tmp_path / "child.sh"
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))
        return Child("toy", ["serve"], log=tmp_path / "log", **more)

    return child


def test_it_is_ready_when_it_says_where(script) -> None:
    with Family() as family:
        child = family.start(
            script("echo starting; echo listening on http://h:1 now; exec sleep 60")
        )
        assert child.url() == "http://h:1"


def test_it_inherits_no_setting_and_no_key_but_its_own(script, monkeypatch) -> None:
    """The user's real key must not reach a toy, nor the user's settings bend the demo."""
    monkeypatch.setenv("TINKER_API_KEY", "tml-real")
    monkeypatch.setenv("TINKEX_PROXY_SERVER__UDS", "/run/p.sock")
    names = ("TINKER_API_KEY", "TINKEX_PROXY_SERVER__UDS", "TINKEX_PROXY_UPSTREAM__API_KEY")
    code = f"echo listening on {'.'.join(f'${name}' for name in names)}; exec sleep 60"
    with Family() as family:
        assert family.start(script(code, api_key="tml-own")).url() == "..tml-own"


def test_one_that_dies_is_quoted(script) -> None:
    with Family() as family:
        child = script("echo oh no >&2; exit 3")
        with pytest.raises(CommandError, match=r"the toy ended with status 3:\noh no"):
            family.start(child).url()


def test_one_that_does_not_get_ready_is_not_waited_for(script) -> None:
    with Family() as family:
        child = family.start(script("exec sleep 60"))
        with pytest.raises(CommandError, match="not ready after"):
            child.url(timeout_s=0.01)
        with pytest.raises(CommandError, match="not ready after"):
            child.url(timeout_s=0)


def test_a_death_interrupts_whatever_goes_on(script) -> None:
    """Such as a call that the proxy would go on trying for minutes."""

    def go_on(family: Family) -> None:
        family.start(script("echo listening on x; sleep 0.2")).url()
        signal.pause()

    with pytest.raises(CommandError, match="the toy ended with status 0"), Family() as family:
        go_on(family)


def test_the_death_of_a_stranger_interrupts_nothing() -> None:
    with Family():
        subprocess.run(["true"], check=True)


def test_that_children_obey_ctrl_c_too_is_no_error(script) -> None:
    """A terminal sends it to all of them."""

    def interrupted(family: Family) -> None:
        child = family.start(script("exec sleep 60"))
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            child._process.kill()
            child._process.wait()

    with pytest.raises(KeyboardInterrupt), Family() as family:
        interrupted(family)


def test_they_are_ended_when_the_demo_fails(script) -> None:
    started: list[Child] = []

    def fail(family: Family) -> None:
        started.append(family.start(script("exec sleep 60")))
        raise ValueError

    with pytest.raises(ValueError), Family() as family:  # noqa: PT011 - our own
        fail(family)
    assert not psutil.pid_exists(started[0].pid)


def test_one_that_does_not_want_to_end_is_made_to(script, monkeypatch) -> None:
    monkeypatch.setattr(children, "STOP_TIMEOUT_S", 0.05)
    with Family() as family:
        child = family.start(
            script("trap '' TERM; echo listening on x; while :; do sleep 60; done")
        )
        child.url()
    assert child.death().args[0].startswith("the toy ended with status -9")
    for orphan in psutil.process_iter(["ppid", "cmdline"]):
        if orphan.info["cmdline"] == ["sleep", "60"] and orphan.info["ppid"] == 1:
            orphan.kill()  # the shell's own child, which only the shell knew


def test_a_second_interrupt_does_not_leave_a_child_behind(script, monkeypatch) -> None:
    """People press Ctrl-C twice."""
    stop = Child.stop

    def interrupted(self: Child) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        stop(self)

    monkeypatch.setattr(Child, "stop", interrupted)
    with Family() as family:
        child = family.start(script("exec sleep 60"))
    assert not psutil.pid_exists(child.pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_becomes_an_orderly_end(number: signal.Signals) -> None:
    """A supervisor's, or that of a terminal that was closed."""
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught, Family():
        os.kill(os.getpid(), number)
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_ctrl_c_works_in_a_job_that_a_shell_put_into_the_background() -> None:
    """Shells start those with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), Family():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
