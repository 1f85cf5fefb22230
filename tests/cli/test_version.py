import importlib.metadata
import platform

from tinkex_proxy.cli import version


def test_version_says_what_a_bug_report_needs(run) -> None:
    status, out, _ = run("version")
    assert status == 0
    assert importlib.metadata.version("tinkex-proxy") in out
    assert platform.python_version() in out
    assert f"pyqwest {importlib.metadata.version('pyqwest')}" in out
    assert "protobuf" in out
    assert "JSON" in out


def test_a_transport_that_is_not_there_is_said_to_be_missing() -> None:
    assert version._installed("no-such-package") == "(not installed)"
