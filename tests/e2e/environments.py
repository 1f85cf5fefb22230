"""Python environments for what the project's own cannot hold: real upstreams, older SDKs, torch.

SkyRL pins an old SDK, needs another Python and a gigabyte of packages, and an SDK needs torch for
custom losses, so each gets a virtual environment of its own, outside the clone: built on first use,
kept, and keyed by the text of its requirement file, so that a changed pin is a new folder and an
old clone still finds its own. A virtual environment cannot be built aside and renamed (its scripts
hold absolute paths): a `.complete` marker, written last, says that a folder is whole, and a lock
that only one process builds it.

Requirement files name the whole set, and pip installs them with --no-deps: so nothing newer comes
in unseen, and torch (through peft) stays out of SkyRL's. Torch itself must be a CPU build: where
pip would find another one first, `PIP_FIND_LINKS` names a folder that has one.

Prometheus with its promtool, and a headless Chromium, come from Debian's packages, where the
machine has none.

Run as a program, it builds all and prints their interpreters.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# What a headless Chromium is called on a machine that has one.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
COMPLETE = ".complete"


class EnvironmentUnavailableError(Exception):
    """An interpreter is missing or an installation failed; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A pinned set of packages and the Python that it was resolved for."""

    name: str
    python: str

    @property
    def requirements(self) -> Path:
        """The file with the exact versions."""
        return HERE / "requirements" / f"{self.name}.txt"

    @property
    def folder(self) -> Path:
        """Where it is kept; the name changes with the pins."""
        return cache() / f"{self.name}-{_digest(self.requirements, self.python)}"

    @property
    def interpreter(self) -> Path:
        """Its Python, there once `build` has returned."""
        return self.folder / "bin" / "python"


SKYRL_040 = Environment("skyrl-0.4.0", "3.12")
SKYRL_030 = Environment("skyrl-0.3.0", "3.11")
SDK_024 = Environment("sdk-0.24.1", "3.11")
SDK_025 = Environment("sdk-0.25.0", "3.11")
SDK_038 = Environment("cookbook-0.6.1", "3.11")  # and tinker-cookbook, which wants no older SDK
ALL = (SKYRL_040, SKYRL_030, SDK_024, SDK_025, SDK_038)
# What `make bench` compares with; no test needs these.
LITELLM = Environment("litellm-1.108.7", "3.11")
GRANIAN = Environment("granian-2.8.7", "3.11")


def cache() -> Path:
    """The folder that outlives clones."""
    given = os.environ.get("TINKEX_E2E_CACHE")
    return Path(given).resolve() if given else Path.home() / ".cache" / "tinkex-proxy-e2e"


def build(environment: Environment) -> Path:
    """Return the environment's interpreter, building the environment if it is not there."""
    once(environment.folder, lambda folder: _install(environment, folder))
    return environment.interpreter


def build_all() -> dict[str, Path]:
    """Build every environment, side by side: most of the time goes into the network."""
    with ThreadPoolExecutor(len(ALL)) as pool:
        return dict(zip([each.name for each in ALL], pool.map(build, ALL), strict=True))


def checkpoint() -> Path:
    """Return the folder of the tiny base model, making it if it is not there."""
    script = HERE / "checkpoint.py"
    folder = cache() / f"tiny-qwen3-{_digest(script, SKYRL_040.folder.name)}"
    maker = build(SKYRL_040)
    once(folder, lambda target: _run([str(maker), str(script), str(target)], "the tiny checkpoint"))
    return folder


def promtool() -> Path:
    """Return Prometheus' checker: the machine's own, or that of Debian's package."""
    return _of_prometheus("promtool")


def prometheus() -> Path:
    """Return Prometheus itself, likewise."""
    return _of_prometheus("prometheus")


def _of_prometheus(program: str) -> Path:
    """The package is unpacked into the cache, not installed.

    That needs no rights, and leaves the machine as it was.
    """
    given = os.environ.get(f"TINKEX_E2E_{program.upper()}") or shutil.which(program)
    if given:
        return Path(given)
    folder = cache() / "promtool"
    once(folder, _unpack_prometheus)
    return folder / "usr" / "bin" / program


def chromium() -> Path:
    """Return a headless Chromium: the machine's own, or that of Debian's packages, unpacked."""
    given = os.environ.get("TINKEX_E2E_CHROMIUM")
    for name in [given] if given else CHROMIUMS:
        if found := shutil.which(name):
            return Path(found)
    folder = cache() / "chromium-headless-shell"
    once(folder, _unpack_chromium)
    return folder / "chromium"


def of_debian(program: str, package: str) -> Path:
    """Return a program: the machine's own, or that of a package of Debian, unpacked.

    Args:
        program: its path below `/`.
        package: whose it is.
    """
    name = Path(program).name
    variable = f"TINKEX_E2E_{name.upper()}"
    given = os.environ.get(variable) or shutil.which(name) or shutil.which(f"/{program}")
    if given:
        return Path(given)
    folder = cache() / name
    once(folder, lambda target: _unpack_program(target, program, [package], variable))
    return folder / name


def once(folder: Path, make: Callable[[Path], None]) -> None:
    """Let exactly one process fill a folder, and fill it again when a former one did not end."""
    with _locked(folder.with_name(folder.name + ".lock")):
        if (folder / COMPLETE).exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
        (folder / COMPLETE).touch()


def find_python(version: str) -> str:
    """Return an interpreter of the given minor version that really runs.

    `python3.12` on the path may be a pyenv shim that refuses while another version is selected:
    hence each candidate is asked for its version, and pyenv for the folder of what it has.
    """
    variable = f"TINKEX_E2E_PYTHON{version.replace('.', '')}"
    given = os.environ.get(variable)
    for candidate in [given] if given else _candidates(version):
        if candidate and _answers(candidate, version):
            return candidate
    looked = f"{variable}={given}" if given else f"PATH, pyenv, /usr/bin and {variable}"
    message = f"Python {version} is needed for the end-to-end tests; none runs (looked at {looked})"
    raise EnvironmentUnavailableError(message)


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    yield shutil.which(f"python{version}") or ""
    yield from _of_pyenv(version)
    yield f"/usr/bin/python{version}"


def _of_pyenv(version: str) -> Iterator[str]:
    if not shutil.which("pyenv"):
        return
    names = _output(["pyenv", "versions", "--bare"]).split()
    for name in names:
        if name == version or name.startswith(version + "."):
            yield f"{_output(['pyenv', 'prefix', name]).strip()}/bin/python"


def _answers(interpreter: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return _output([interpreter, "-c", code]).strip() == version


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _install(environment: Environment, folder: Path) -> None:
    print(f"building {folder} (once; a minute or two)", flush=True)
    base = find_python(environment.python)
    _run([base, "-m", "venv", str(folder)], environment.name)
    pip = [str(environment.interpreter), "-m", "pip", "install", "--no-deps", "--no-input", "-q"]
    _run([*pip, "-r", str(environment.requirements)], environment.name)


def _unpack_prometheus(folder: Path) -> None:
    folder.mkdir(parents=True)
    remedy = _remedy("promtool", "TINKEX_E2E_PROMTOOL and _PROMETHEUS")
    _run(["apt-get", "download", "-q", "prometheus"], remedy, folder)
    _unpack(folder, remedy)


def _unpack_chromium(folder: Path) -> None:
    program = "usr/lib/chromium/chromium-headless-shell"
    packages = ["chromium-headless-shell", "fonts-dejavu-core"]
    _unpack_program(folder, program, packages, "TINKEX_E2E_CHROMIUM", name="chromium")


def _unpack_program(
    folder: Path, program: str, packages: list[str], variable: str, name: str | None = None
) -> None:
    """Put a program, what else it needs and the machine has not, and what starts it in a folder."""
    (folder / "partial").mkdir(parents=True)
    name = name or Path(program).name
    remedy = _remedy(name, variable)
    options = ["-qy", "--no-install-recommends", "--download-only"]
    options += ["-o", f"Dir::Cache::archives={folder}", "-o", "Debug::NoLocking=true"]
    _run(["apt-get", "install", *options, *packages], remedy, folder)
    _unpack(folder, remedy)
    started = folder / name
    # Some are in folders below, where only a library beside them would look if it were installed.
    files = folder.glob("usr/lib/*-linux-gnu/**/*.so*")
    libraries = ":".join(sorted({str(found.parent) for found in files}, key=len))
    paths = f"LD_LIBRARY_PATH='{libraries}' XDG_DATA_HOME='{folder}/usr/share'"
    started.write_text(f"#!/bin/sh\n{paths} exec '{folder}/{program}' \"$@\"\n")
    started.chmod(0o755)


def _remedy(what: str, variable: str) -> str:
    remedy = f"{what} (apt-get update first, or {variable}=its path)"
    if not shutil.which("apt-get"):
        raise EnvironmentUnavailableError(f"no apt-get for {remedy}")
    return remedy


def _unpack(folder: Path, remedy: str) -> None:
    for package in folder.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(folder)], remedy)
        package.unlink()


def _run(command: list[str], what: str, folder: Path | None = None) -> None:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        message = f"{what}: {' '.join(command)} gave {done.returncode}:\n{done.stdout[-4000:]}"
        raise EnvironmentUnavailableError(message)


def _digest(file: Path, *more: str) -> str:
    return hashlib.sha256(b"\0".join([file.read_bytes(), *(m.encode() for m in more)])).hexdigest()[
        :12
    ]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for built, interpreter in build_all().items():
        print(built, interpreter)
    print("tiny-qwen3", checkpoint())
    print("promtool", promtool())
    print("chromium", chromium())
