import subprocess
import sys

import pytest

from tinkex_proxy.cli import version


def test_importing_the_command_line_loads_no_server() -> None:
    """`version` and `check` must not pay for one, and serve's start is measured in tenths."""
    heavy = "fastapi starlette uvicorn httpx pyqwest msgspec numpy rich plotext prometheus_client"
    code = (
        "import sys, tinkex_proxy.cli; "
        f"print(*sorted(set({heavy.split()}) & set(sys.modules)), sep=',')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_command_is_required(run) -> None:
    status, _, errors = run()
    assert status == 2
    assert "COMMAND" in errors


@pytest.mark.parametrize("command", ["serve", "demo", "sandbox", "check", "status", "version"])
def test_every_command_explains_itself(run, command: str) -> None:
    status, out, _ = run(command, "--help")
    assert status == 0
    assert f"tinkex-proxy {command}" in out
    assert command in run("--help")[1]


def test_an_interrupted_command_says_so_by_its_status(run, monkeypatch) -> None:
    """130, as shells do."""

    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(version, "_run", interrupted)
    assert run("version") == (130, "", "")


def test_bad_configuration_is_78_with_every_problem(run) -> None:
    status, out, errors = run("check", "--server.prt", "1", "--upstream.base-ulr", "x")
    assert status == 78
    assert out == ""
    assert "the nearest known setting is server.port" in errors
    assert "the nearest known setting is upstream.base_url" in errors


def test_a_stray_argument_is_a_usage_error(run) -> None:
    status, _, errors = run("version", "--loud=tml-canary", "tml-canary")
    assert status == 2
    assert "--loud" in errors
    assert "canary" not in errors


def test_python_m_is_the_same_program() -> None:
    command = [sys.executable, "-m", "tinkex_proxy", "version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tinkex-proxy  ")
