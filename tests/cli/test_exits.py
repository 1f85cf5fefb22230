import os

import pytest

from tinkex_proxy.cli import exits


@pytest.mark.skipif(not hasattr(os, "EX_CONFIG"), reason="not a Unix")
def test_statuses_are_those_of_sysexits() -> None:
    assert exits.BAD_CONFIGURATION == os.EX_CONFIG
    assert exits.UNAVAILABLE == os.EX_UNAVAILABLE


def test_a_command_error_is_unavailability_unless_said_otherwise() -> None:
    assert exits.CommandError("gone").status == exits.UNAVAILABLE
    assert exits.CommandError("bad", status=exits.FAILED).status == exits.FAILED
