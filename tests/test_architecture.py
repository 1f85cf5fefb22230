"""What a machine can hold of the design, a machine holds."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinkex_proxy.core.breaker import TRANSITIONS, State

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tinkex_proxy"
GENERATED = {"tinker_pb2.py"}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name not in GENERATED)
PURE = [p for p in MODULES if p.relative_to(PACKAGE).parts[0] in {"core", "wire"}]

# Modules whose test file has another name, and why.
TESTED_ELSEWHERE = {
    "cli/sandbox_server.py": "it runs in the child processes of tests/cli/test_sandbox.py",
    "config/faults.py": "one exception; every test of tests/config raises it",
    "config/sections.py": "declarations; tests/config/test_load.py and test_show.py read them all",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def code_of(path: Path) -> str:
    """A module without comments and docstrings."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = [*node.body[1:], ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_core_and_wire_never_suspend(path: Path) -> None:
    words = re.findall(r"^.*\b(?:async|await)\b.*$", code_of(path), re.MULTILINE)
    assert words == []


def test_every_module_has_its_test_file() -> None:
    missing = []
    for path in MODULES:
        inside = path.relative_to(PACKAGE)
        if inside.name in {"__init__.py", "__main__.py"} or str(inside) in TESTED_ELSEWHERE:
            continue
        if not any((ROOT / "tests" / inside.parent).rglob(f"test_{inside.name}")):
            missing.append(str(inside))
    assert missing == []


def test_exemptions_only_shrink() -> None:
    assert set(TESTED_ELSEWHERE) <= {name_of(path) for path in MODULES}
    assert len(TESTED_ELSEWHERE) <= 3


def test_no_module_is_called_utils() -> None:
    bad = {"utils", "helpers", "common", "manager", "util", "misc"}
    assert [name_of(p) for p in MODULES if p.stem in bad] == []


IMPORTING = """
import asyncio, importlib, os, sys, threading

PACKAGE, NAMES = sys.argv[1], sys.argv[2:]
FROZEN = {"<frozen os>", "<frozen _collections_abc>"}
seen = []


def hook(event, args):
    if event.startswith("socket.") and event != "socket.gethostname":
        seen.append(event)
    elif event in {"subprocess.Popen", "os.fork"}:
        seen.append(event)


class Watched(type(os.environ)):
    def __init__(self, real):
        self.__dict__.update(real.__dict__)

    def __getitem__(self, key):
        self.note(key)
        return super().__getitem__(key)

    def __iter__(self):
        self.note("all of it")
        return super().__iter__()

    def note(self, what):
        frame = sys._getframe()
        while frame.f_code.co_filename in {os.__file__, "<string>", *FROZEN}:
            frame = frame.f_back  # os.getenv, Mapping.get and ourselves read for somebody else
        if frame.f_code.co_filename.startswith(PACKAGE):
            seen.append(f"{what} of the environment, by {frame.f_code.co_filename}")


def noted(owner, name, what):
    real = getattr(owner, name)

    def wrapper(*arguments, **named):
        seen.append(what)
        return real(*arguments, **named)

    setattr(owner, name, wrapper)


sys.addaudithook(hook)
os.environ = Watched(os.environ)
noted(threading.Thread, "start", "a thread")
noted(asyncio.BaseEventLoop, "__init__", "an event loop")
for name in NAMES:
    before = len(seen)
    importlib.import_module(name)
    if len(seen) > before:
        print(name, seen[before:])
"""


def ran_importing(package: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Import modules one after another; what they do that an import must not is printed."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTING, str(package), *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=package.parent,
    )


def test_importing_everything_does_nothing() -> None:
    """No socket, no task, no thread, no process, no look at the environment."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if path.name != "__main__.py"
    ]
    ran = ran_importing(PACKAGE, *names)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import socket; socket.create_server(('127.0.0.1', 0)).close()", "socket.bind"),
        ("import os; os.environ.get('HOME')", "HOME of the environment"),
        ("import os; os.getenv('TINKER_API_KEY')", "TINKER_API_KEY of the environment"),
        ("import os; dict(os.environ)", "all of it of the environment"),
        ("import threading; threading.Thread(target=print).start()", "a thread"),
        ("import asyncio; asyncio.run(asyncio.sleep(0))", "an event loop"),
        ("import subprocess; subprocess.run(['true'])", "subprocess.Popen"),
        ("import pydantic\nclass A(pydantic.BaseModel):\n    a: int", ""),
    ],
)
def test_the_watch_over_imports_can_see(tmp_path: Path, code: str, said: str) -> None:
    """What other packages do when they are imported is their own business."""
    package = tmp_path / "watched"
    package.mkdir()
    (package / "__init__.py").write_text(code)
    ran = ran_importing(package, "watched")
    assert said in ran.stdout
    assert bool(ran.stdout) is bool(said), ran.stdout + ran.stderr


def test_every_state_has_a_row() -> None:
    """Dead ends too; and every state can be come to, so that none is there for nothing."""
    assert set(TRANSITIONS) == set(State)
    assert set().union(*TRANSITIONS.values()) == set(State)


def test_the_command_line_starts_without_the_servers_imports() -> None:
    """`--help` and `version` must not wait for fastapi, numpy or httpx."""
    code = (
        "import sys, tinkex_proxy.cli; "
        "print([m for m in ('fastapi', 'numpy', 'httpx', 'rich', 'uvicorn') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
