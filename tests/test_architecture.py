"""What a machine can hold of the design, a machine holds."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_core_and_wire_never_suspend(path: Path) -> None:
    asynchronous = ast.AsyncFunctionDef | ast.Await | ast.AsyncWith | ast.AsyncFor
    bad = [n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, asynchronous)]
    assert bad == []


def test_every_module_has_its_test_file() -> None:
    missing = []
    for path in MODULES:
        inside = path.relative_to(PACKAGE)
        if inside.name in {"__init__.py", "__main__.py"} or str(inside) in TESTED_ELSEWHERE:
            continue
        if not (ROOT / "tests" / inside.parent / f"test_{inside.name}").exists():
            missing.append(str(inside))
    assert missing == []


def test_exemptions_only_shrink() -> None:
    assert set(TESTED_ELSEWHERE) <= {name_of(path) for path in MODULES}
    assert len(TESTED_ELSEWHERE) <= 3


def test_no_module_is_called_utils() -> None:
    bad = {"utils", "helpers", "common", "manager", "util", "misc"}
    assert [name_of(p) for p in MODULES if p.stem in bad] == []


def test_importing_everything_does_nothing() -> None:
    """No socket, no task, no thread, no look at our settings."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in MODULES
        if path.name not in {"__init__.py", "__main__.py"}
    ]
    code = f"""
import asyncio, importlib, os, sys, threading
import fastapi, uvicorn, httpx, pyqwest, structlog, prometheus_client, numpy, rich, plotext
import fastapi_offline, prometheus_fastapi_instrumentator, pydantic_settings, aiobreaker
seen = []
def hook(event, args):
    if event.startswith("socket.") and event != "socket.gethostname":
        seen.append(event)
sys.addaudithook(hook)
class Watched(dict):
    def get(self, key, default=None):
        if key.startswith("TINK"):
            seen.append(key)
        return super().get(key, default)
os.environ = Watched(os.environ)
for name in {names!r}:
    importlib.import_module(name)
assert threading.active_count() == 1, threading.enumerate()
assert seen == [], seen
try:
    asyncio.get_running_loop()
except RuntimeError:
    print("quiet")
"""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip() == "quiet", ran.stderr


def test_the_command_line_starts_without_the_servers_imports() -> None:
    """`--help` and `version` must not wait for fastapi, numpy or httpx."""
    code = (
        "import sys, tinkex_proxy.cli; "
        "print([m for m in ('fastapi', 'numpy', 'httpx', 'rich', 'uvicorn') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
