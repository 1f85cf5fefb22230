"""Where it was measured, and with which versions."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from tests.bench.compare.contestants import HAPROXY, NGINX
from tests.bench.compare.wrk import WRK
from tests.e2e.environments import GRANIAN, LITELLM, of_debian

_OURS = ("uvicorn", "uvloop", "httptools", "fastapi", "pyqwest", "httpx")
_NUMBER = re.compile(r"\d+(?:\.\d+)+")


def machine() -> str:
    """Cores, processor, kernel, and how busy it was before."""
    busy = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({processor()}), Linux {platform.release()}, "
        f"Python {platform.python_version()}; load of the minute before: {busy:.1f}"
    )


def processor() -> str:
    """What the kernel calls it."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def versions() -> str:
    """Of everything that takes part."""
    debian = (("nginx", NGINX), ("HAProxy", HAPROXY), ("wrk", WRK))
    named = [f"{name} {_of_program(str(of_debian(*place)))}" for name, place in debian]
    named += [f"{name} {metadata.version(name)}" for name in ("tinkex-proxy", *_OURS)]
    named += [" ".join(each.name.rsplit("-", 1)) for each in (LITELLM, GRANIAN)]
    return ", ".join(named)


def _of_program(program: str) -> str:
    """wrk has no option for it, and says it with its help."""
    done = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    found = _NUMBER.search(done.stdout + done.stderr)
    return found[0] if found else "of unknown version"
