import signal

import psutil
import pytest

from tinkex_proxy.cli.demo import children
from tinkex_proxy.cli.exits import CommandError


def told_by(child: children.Child) -> str:
    while (url := child.url()) is None:
        pass
    return url


def test_it_tells_where_it_listens_however_that_comes(script) -> None:
    child = script(
        "printf 'starting\\nlistening on http:'; sleep 0.05; echo '//h:1 now'; exec sleep 60"
    )
    assert told_by(child) == "http://h:1"
    assert child.is_alive()
    child.stop()
    assert not psutil.pid_exists(child.pid)


def test_it_inherits_no_setting_and_no_key_but_its_own(script, monkeypatch) -> None:
    """The user's real key must not reach a toy, nor the user's settings bend the demo."""
    monkeypatch.setenv("TINKER_API_KEY", "tml-real")
    monkeypatch.setenv("TINKEX_PROXY_SERVER__UDS", "/run/p.sock")
    names = ("TINKER_API_KEY", "TINKEX_PROXY_SERVER__UDS", "TINKEX_PROXY_UPSTREAM__API_KEY")
    child = script(f"echo listening on {'.'.join(f'${name}' for name in names)}", api_key="tml-own")
    assert told_by(child) == "..tml-own"
    child.stop()


def test_one_that_dies_is_quoted(script) -> None:
    child = script("echo oh no >&2; exit 3")
    with pytest.raises(CommandError, match=r"the toy ended with status 3:\noh no"):
        child.url()
    child.stop()


def test_one_that_does_not_want_to_end_is_made_to(script, monkeypatch) -> None:
    monkeypatch.setattr(children, "STOP_TIMEOUT_S", 0.05)
    child = script("trap '' TERM; echo listening on x; while :; do sleep 60; done")
    told_by(child)
    orphans = psutil.Process(child.pid).children()
    child.stop()
    assert child.death().args[0].startswith("the toy ended with status -9")
    for orphan in orphans:
        orphan.kill()  # the shell's own child, which only the shell knew


def test_one_that_cannot_even_be_killed_is_not_waited_for(script, monkeypatch) -> None:
    """The kernel may keep it, such as one in the middle of a write to a disk that hangs."""
    monkeypatch.setattr(children, "STOP_TIMEOUT_S", 0.01)
    monkeypatch.setattr(children, "KILL_TIMEOUT_S", 0.01)
    child = script("exec sleep 60")
    with monkeypatch.context() as kept:
        kept.setattr(child._process, "send_signal", lambda _: None)
        child.stop()
    assert child.is_alive()
    child._process.send_signal(signal.SIGKILL)
    child._process.wait()
