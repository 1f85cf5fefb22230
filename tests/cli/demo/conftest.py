import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tinkex_proxy.cli.demo.children import Child


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Child]:
    """Children that run a script instead of the command line."""

    def child(code: str, **more: str) -> Child:
        path = tmp_path / "child.sh"
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(path))
        return Child("toy", ["serve"], log=tmp_path / "log", **more)

    return child
