import pytest

from tinkex_proxy.cli.exits import CommandError
from tinkex_proxy.cli.extras import needing_the_sandbox_extra


def test_a_missing_package_is_told_with_the_command_that_installs_it() -> None:
    with (
        pytest.raises(CommandError, match=r"demo` needs numpy.*tinkex-proxy\[sandbox\]"),
        needing_the_sandbox_extra("demo"),
    ):
        raise ModuleNotFoundError("no", name="numpy")


def test_a_bug_of_our_own_is_not_taken_for_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError), needing_the_sandbox_extra("demo"):
        raise ModuleNotFoundError("no", name="tinkex_proxy.nothing")
