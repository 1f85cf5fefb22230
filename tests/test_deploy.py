"""What is deployed is parsed and held to its promises: no root, no secrets, no surprises."""

import configparser
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tinkex_proxy.config import Settings, find_contradictions
from tinkex_proxy.config.load import STATE_VARIABLE
from tinkex_proxy.config.names import all_settings
from tinkex_proxy.server import LAST_WORDS_S, PAUSE_BEYOND_LOOPBACK_S

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
JOB = yaml.safe_load((ROOT / "deploy/kubernetes/native-sidecar.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]
UNIT_FILE = ROOT / "deploy/systemd/tinkex-proxy.service"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {
    "requirements.lock": ("sandbox", "otel", "dev"),
    "requirements-runtime.lock": (),
    "requirements-sandbox.lock": ("sandbox",),
    "requirements-otel.lock": ("otel",),
    "requirements-build.lock": None,
}
DEPLOYED = [
    ROOT / "Dockerfile",
    ROOT / ".dockerignore",
    ROOT / "docker-compose.yml",
    *(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
    *(ROOT / name for name in LOCKS),
]
DEFAULTS = Settings()


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions, continued lines joined."""
    lines = re.sub(r"\\\n\s*", " ", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def last_stage() -> list[tuple[str, str]]:
    found = instructions(DOCKERFILE)
    start = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read_string(UNIT_FILE.read_text())
    return parser


def pinned(lock: str) -> dict[str, Version]:
    text = (ROOT / lock).read_text()
    found = re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^\s;]+)", text)
    return {canonicalize_name(name): Version(version) for name, version in found}


# --- everything


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_key_and_no_private_index_is_deployed(path: Path) -> None:
    """Keys come from secrets and variables; packages from wherever the user's pip looks."""
    text = path.read_text()
    assert set(re.findall(r"tml-[\w-]+", text)) <= {"tml-sandbox"}
    assert not re.search(r"(?m)^\s*--(extra-)?(index-url|find-links|trusted-host)", text)
    assert "file://" not in text


def names_of_settings(variables: list[str]) -> set[str]:
    known = {setting.variable for setting in all_settings()}
    return {name for name in variables if name.startswith("TINKEX_PROXY_")} - known


def test_every_variable_that_is_set_is_a_setting() -> None:
    """A misspelt one would keep the container from starting."""
    environment = [
        *COMPOSE["services"]["proxy"]["environment"],
        *(variable["name"] for variable in POD["initContainers"][0]["env"]),
        *re.findall(r"TINKEX_PROXY_\w+__\w+", DOCKERFILE + UNIT_FILE.read_text()),
    ]
    assert names_of_settings(environment) == set()


# --- locks


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_its_hashes(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "make lock" in text
    for block in re.split(r"(?m)^(?=[A-Za-z])", text)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]


@pytest.mark.parametrize(("lock", "extras"), LOCKS.items())
def test_the_lock_is_of_this_pyproject(lock: str, extras: tuple[str, ...] | None) -> None:
    """When this fails: make lock."""
    project = PROJECT["project"]
    wanted = PROJECT["build-system"]["requires"]
    if extras is not None:
        optional = project["optional-dependencies"]
        wanted = project["dependencies"] + [one for extra in extras for one in optional[extra]]
    pins = pinned(lock)
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_the_locks_are_one_resolution() -> None:
    """What is tested is what is shipped."""
    tested = pinned("requirements.lock")
    for lock in LOCKS:
        assert pinned(lock).items() <= tested.items()


# --- image


def test_the_image_runs_as_nobody_in_particular() -> None:
    """By number, because Kubernetes cannot check a name."""
    (user,) = [value for word, value in last_stage() if word == "USER"]
    uid, _, gid = user.partition(":")
    assert int(uid) > 1000
    assert int(gid) > 1000
    assert f"--uid {uid}" in DOCKERFILE


def test_the_journal_outlasts_what_runs_the_proxy() -> None:
    """A volume, a folder of the unit's: where the variable says, and the proxy may write."""
    stage = last_stage()
    folder = "/var/lib/tinkex-proxy"
    (environment,) = [text for word, text in stage if word == "ENV"]
    assert f"{STATE_VARIABLE}={folder} " in environment
    assert ("VOLUME", folder) in stage
    assert any(f"install -d -o 10001 -g 10001 -m 0700 {folder}" in text for _, text in stage)
    (mounted,) = COMPOSE["services"]["proxy"]["volumes"]
    assert mounted.split(":") == ["journal", folder]
    assert "journal" in COMPOSE["volumes"]
    (sidecar,) = POD["initContainers"]
    (mount,), (volume,) = sidecar["volumeMounts"], POD["volumes"]
    assert (mount["mountPath"], mount["name"]) == (folder, volume["name"])
    size = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
    assert size > DEFAULTS.journal.max_bytes
    service = unit()["Service"]
    assert service["StateDirectory"] == "tinkex-proxy"
    assert service["Environment"] == f"{STATE_VARIABLE}=%S/tinkex-proxy"


def test_the_image_says_whether_it_is_well() -> None:
    (health,) = [value for word, value in last_stage() if word == "HEALTHCHECK"]
    assert '["tinkex-proxy", "status", "--health"]' in health


def test_the_image_is_the_command_and_gets_signals_itself() -> None:
    """In the exec form: a shell between would keep SIGTERM for itself."""
    stage = dict(last_stage())
    assert stage["ENTRYPOINT"] == '["tinkex-proxy"]'
    assert stage["CMD"] == '["serve"]'
    assert stage["EXPOSE"] == str(DEFAULTS.server.port)


def test_the_image_has_no_compiler_and_nothing_unlocked() -> None:
    """Every pip of the build demands hashes, or takes only what the build has made."""
    assert "apt-get" not in DOCKERFILE
    pips = re.findall(r"pip install[^&\n]*", DOCKERFILE)
    assert len(pips) == 3
    for pip in pips:
        assert "--require-hashes" in pip or "--no-index" in pip


def test_the_build_sees_what_it_copies_and_no_more() -> None:
    """`.dockerignore` lets in exactly the sources of the COPY lines."""
    copied = {
        source.removeprefix("./").rstrip("/")
        for word, value in instructions(DOCKERFILE)
        if word == "COPY" and "--from" not in value
        for source in value.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


# --- compose


def test_compose_publishes_to_this_machine_only() -> None:
    for service in COMPOSE["services"].values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
    assert "ports" not in COMPOSE["services"]["sandbox"]


def test_compose_builds_the_sandbox_with_its_lock() -> None:
    lock = COMPOSE["services"]["sandbox"]["build"]["args"]["LOCK"]
    assert LOCKS[lock] == ("sandbox",)
    assert f"COPY {lock}" in DOCKERFILE or f" {lock} " in DOCKERFILE


def test_compose_drops_what_containers_do_not_need() -> None:
    for name in ("proxy", "sandbox"):
        service = COMPOSE["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]


def test_compose_calls_things_by_names_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy finds the sandbox, Prometheus the proxy, which answers to that name."""
    environment = COMPOSE["services"]["proxy"]["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
    settings = Settings.load({"server.host": "0.0.0.0"})
    assert find_contradictions(settings) == []
    command = COMPOSE["services"]["sandbox"]["command"]
    assert settings.upstream.base_url == f"http://sandbox:{command[command.index('--port') + 1]}"
    (target,) = PROMETHEUS["scrape_configs"][0]["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert host in COMPOSE["services"]
    assert host in settings.server.allowed_hosts
    assert int(port) == settings.server.port


# --- Kubernetes


def test_the_sidecar_is_native() -> None:
    """An always restarted init container starts first and ends last: the Job completes."""
    (sidecar,) = POD["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert POD["restartPolicy"] == "Never"
    assert sidecar["startupProbe"]["exec"]["command"] == ["tinkex-proxy", "status", "--health"]


def test_the_sidecar_is_the_pods_own() -> None:
    """On loopback, so that no other pod can use the key; hence probes that are commands."""
    (sidecar,) = POD["initContainers"]
    environment = {one["name"]: one for one in sidecar["env"]}
    assert environment["TINKEX_PROXY_SERVER__HOST"]["value"] == "127.0.0.1"
    assert "secretKeyRef" in environment["TINKER_API_KEY"]["valueFrom"]
    assert "httpGet" not in yaml.dump(sidecar)


def test_no_container_of_the_pod_is_privileged() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] == int(re.search(r"USER (\d+)", DOCKERFILE)[1])
    assert POD["automountServiceAccountToken"] is False
    for container in POD["initContainers"] + POD["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"]["drop"] == ["ALL"]
        assert container["resources"]["limits"]["memory"]


# --- stopping


def test_everybody_waits_longer_than_the_proxy_needs_to_stop() -> None:
    """Killed in the middle of a drain, answers would be lost; containers listen beyond loopback."""
    needed = PAUSE_BEYOND_LOOPBACK_S + DEFAULTS.calls.shutdown_grace_s + LAST_WORDS_S + 1
    assert needed <= PAUSE_BEYOND_LOOPBACK_S + DEFAULTS.calls.shutdown_grace_s + 5, "as documented"
    assert POD["terminationGracePeriodSeconds"] >= needed
    assert int(COMPOSE["services"]["proxy"]["stop_grace_period"].rstrip("s")) >= needed
    assert int(unit()["Service"]["TimeoutStopSec"]) >= needed


# --- systemd


def test_the_unit_does_not_restart_into_a_bad_configuration() -> None:
    service = unit()["Service"]
    assert service["RestartPreventExitStatus"] == "78"
    assert service["Restart"] == "on-failure"
    assert service["ExecStartPre"].endswith("tinkex-proxy check --offline")
    assert service["ExecStart"].endswith("tinkex-proxy serve")


def test_the_unit_reloads_by_the_signal_that_does() -> None:
    assert unit()["Service"]["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_the_unit_has_no_more_rights_than_it_needs() -> None:
    service = unit()["Service"]
    assert service["DynamicUser"] == "yes"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert "User" not in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """With a program that exists on this machine in place of the one it names."""
    program = unit()["Service"]["ExecStart"].split()[0]
    copy = tmp_path / UNIT_FILE.name
    copy.write_text(UNIT_FILE.read_text().replace(program, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    told = [line for line in done.stderr.splitlines() if UNIT_FILE.name in line]
    assert told == []


# --- CI


def test_ci_runs_what_people_run() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert [line for line in lines if line.startswith("make ")] == ["make test", "make e2e"]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("target", ["help", "run", "test", "e2e", "lock", "clean"])
def test_make_knows_its_targets(target: str) -> None:
    command = ["make", "--dry-run", "--always-make", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
