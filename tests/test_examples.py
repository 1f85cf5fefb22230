"""Every example trains: its loss falls."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    "train.py": [sys.executable],
    "train.sh": ["bash"],
    "train.mjs": ["node"],
}


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").iterdir()} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_trains(proxy_url: str, name: str) -> None:
    interpreter = EXAMPLES[name]
    if shutil.which(interpreter[0]) is None:
        pytest.skip(f"{interpreter[0]} is not installed here; install it to run this example")
    command = [*interpreter, str(ROOT / "examples" / name), proxy_url]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    losses = [float(found) for found in re.findall(r"loss (\S+)", ran.stdout)]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
