import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from tinkex_proxy.cli.demo import family as module
from tinkex_proxy.cli.demo.children import Child
from tinkex_proxy.cli.demo.family import Family
from tinkex_proxy.cli.exits import CommandError

LISTENING = "echo listening on http://h:1 now; exec sleep 60"
ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@contextlib.contextmanager
def ended_by(number: signal.Signals) -> Iterator[None]:
    """What is within it is to end as the signal ends a demo."""
    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
        yield
    expected = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
    assert repr(caught.value) == repr(expected)


def test_one_is_taken_in_when_it_listens(script) -> None:
    with Family() as family:
        assert family.start(script(LISTENING)) == "http://h:1"


def test_one_that_dies_before_is_quoted(script) -> None:
    with Family() as family, pytest.raises(CommandError, match=r"ended with status 3:\noh no"):
        family.start(script("echo oh no >&2; exit 3"))


@pytest.mark.parametrize("timeout_s", [0.01, 0.0, -1.0])
def test_one_that_does_not_get_ready_is_not_waited_for(script, timeout_s: float) -> None:
    with Family() as family, pytest.raises(CommandError, match="not ready after"):
        family.start(script("exec sleep 60"), timeout_s=timeout_s)


def test_what_comes_of_work_is_given_or_raised() -> None:
    with Family() as family:
        assert family.attend(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            family.attend(lambda: 1 // 0)


def test_work_goes_on_in_a_thread() -> None:
    with Family() as family:
        assert family.attend(threading.get_ident) != threading.get_ident()


def test_a_death_interrupts_whatever_goes_on(script) -> None:
    """Such as a call that the proxy would go on trying for minutes."""
    never = threading.Event()

    def go_on(family: Family) -> None:
        family.start(script("echo listening on x; sleep 0.2"))
        try:
            family.attend(never.wait)
        finally:
            never.set()

    with pytest.raises(CommandError, match="the toy ended with status 0"), Family() as family:
        go_on(family)


def test_a_death_just_before_is_noticed(script) -> None:
    with Family() as family:
        child = script(LISTENING)
        family.start(child)
        psutil.Process(child.pid).kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(CommandError, match="the toy ended with status -9"):
            family.wait()


def test_the_death_of_a_stranger_interrupts_nothing() -> None:
    with Family() as family:
        subprocess.run(["true"], check=True)
        assert not family.wait(timeout_s=0.01)


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_came_before_the_wait_is_not_lost(number: signal.Signals) -> None:
    with ended_by(number), Family() as family:
        os.kill(os.getpid(), number)
        family.wait()


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_another_thread_was_given_is_not_lost(number: signal.Signals) -> None:
    """The kernel gives it to any."""
    never = threading.Event()
    other = threading.Thread(target=never.wait)
    other.start()
    try:
        with ended_by(number), Family() as family:
            signal.pthread_kill(other.ident, number)
            family.wait()
    finally:
        never.set()
        other.join()


def test_a_signal_does_not_raise_where_nothing_waits() -> None:
    """A lock would be taken there and never given back."""
    with ended_by(signal.SIGTERM), Family() as family:
        os.kill(os.getpid(), signal.SIGTERM)
        waited = True
        family.wait()
    assert waited


def test_that_children_obey_ctrl_c_too_is_no_error(script) -> None:
    """A terminal sends it to all of them."""
    with ended_by(signal.SIGINT), Family() as family:
        child = script(LISTENING)
        family.start(child)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(child.pid, signal.SIGINT)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        family.wait()


def test_nor_is_it_while_the_last_words_are_said(script) -> None:
    with Family() as family:
        child = script(LISTENING)
        family.start(child)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            family.wait()
        os.kill(child.pid, signal.SIGINT)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert family.attend(lambda: "Ended.") == "Ended."
        assert not family.wait(timeout_s=0.01)


def test_they_are_ended_when_the_demo_fails(script) -> None:
    started: list[Child] = []

    def fail(family: Family) -> None:
        started.append(script(LISTENING))
        family.start(started[0])
        raise ValueError

    with pytest.raises(ValueError), Family() as family:  # noqa: PT011 - our own
        fail(family)
    assert not psutil.pid_exists(started[0].pid)


def test_a_second_interrupt_does_not_leave_a_child_behind(script, monkeypatch) -> None:
    """People press Ctrl-C twice."""
    stop = Child.stop

    def interrupted(self: Child) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        stop(self)

    monkeypatch.setattr(Child, "stop", interrupted)
    with Family() as family:
        child = script(LISTENING)
        family.start(child)
    assert not psutil.pid_exists(child.pid)


def test_work_that_does_not_end_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(module, "WORK_TIMEOUT_S", 0.01)
    never = threading.Event()
    with ended_by(signal.SIGTERM), Family() as family:
        os.kill(os.getpid(), signal.SIGTERM)
        family.attend(never.wait)
    never.set()


def test_time_is_counted_on_when_a_stranger_dies() -> None:
    began = time.monotonic()
    with Family() as family:
        subprocess.run(["true"], check=True)
        assert not family.wait(timeout_s=0.05)
    assert time.monotonic() - began >= 0.05


def test_signals_are_given_back() -> None:
    before = {number: signal.getsignal(number) for number in [*ENDING, signal.SIGCHLD]}
    with Family():
        pass
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1


def test_ctrl_c_works_in_a_job_that_a_shell_put_into_the_background() -> None:
    """Shells start those with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with ended_by(signal.SIGINT), Family() as family:
            os.kill(os.getpid(), signal.SIGINT)
            family.wait()
    finally:
        signal.signal(signal.SIGINT, before)
