"""Run `sdk_program.py` with one SDK against one server, and say in what two runs differ."""

import json
import math
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.environments import HERE, SDK_024, SDK_025, SDK_038, Environment, build
from tests.e2e.servers import KEY

PROGRAM_S = 300
TAIL = 3000
SHOWN = 5
TIMES = {"last_request_time", "time"}

Seen = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sdk:
    """A version of the official SDK, and the environment that holds it."""

    version: str
    environment: Environment


SDKS = (Sdk("0.24.1", SDK_024), Sdk("0.25.0", SDK_025), Sdk("0.38.0", SDK_038))


def run_sdk(sdk: Sdk, url: str, style: str, steps: int, parts: Sequence[str] = ()) -> Seen:
    """What the program saw.

    Raises:
        AssertionError: it failed, and what it wrote.
    """
    told = run_program(sdk.environment, "sdk_program.py", [style, str(steps), *parts], url)
    assert told["sdk"] == sdk.version
    return told


def run_program(
    environment: Environment,
    program: str,
    arguments: Sequence[str],
    url: str,
    variables: Mapping[str, str] | None = None,
    folder: Path = HERE,
) -> Seen:
    """Run a program of this folder; what its last line of output says."""
    done = subprocess.run(
        [str(build(environment)), str(HERE / program), *arguments],
        cwd=folder,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TINKER_BASE_URL": url,
            "TINKER_API_KEY": KEY,
            **(variables or {}),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=PROGRAM_S,
    )
    written = f"stdout: {done.stdout[-TAIL:]}\nstderr: {done.stderr[-TAIL:]}"
    command = f"{environment.name}: {program} {' '.join(arguments)}"
    assert done.returncode == 0, f"{command} gave {done.returncode}\n{written}"
    return json.loads(done.stdout.splitlines()[-1])


def anonymous(seen: Seen) -> Seen:
    """The same with `model-0`, `model-1` ... in the place of ids, and without times of day."""
    text = json.dumps(seen)
    for number, model_id in enumerate(seen["models"]):
        text = text.replace(model_id, f"model-{number}")
    return json.loads(text, object_hook=_timeless)


def _timeless(fields: Seen) -> Seen:
    return {key: value for key, value in fields.items() if key not in TIMES}


def assert_same(found: Seen, expected: Seen) -> None:
    """Fail with the first differences by their place, not with a megabyte of numbers."""
    apart = list(differences(found, expected))
    text = "\n".join(apart[:SHOWN])
    assert not apart, f"{len(apart)} differences, found against expected:\n{text}"


def differences(found: Any, expected: Any, place: str = "") -> Iterator[str]:
    """Each place where two runs differ, with what is there."""
    if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
        for key in expected:
            yield from differences(found[key], expected[key], f"{place}.{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif json.dumps(found) != json.dumps(expected):  # as text, so that NaN equals NaN
        yield f"{place}: {found!s:.300} against {expected!s:.300}"


def losses(seen: Seen) -> list[float]:
    """The loss before each step."""
    return [loss(trained) for trained, _ in seen["trained"]]


def loss(output: Seen) -> float:
    """The summed negative log probability of all targets."""
    return -math.fsum(math.fsum(one["logprobs"]["data"]) for one in output["loss_fn_outputs"])
