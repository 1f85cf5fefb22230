import argparse
from pathlib import Path

import pytest

from tinkex_proxy.cli.exits import CommandError
from tinkex_proxy.cli.options import add_settings, load_settings, refuse
from tinkex_proxy.config import ConfigError, Settings
from tinkex_proxy.config.names import all_settings


def parse(*arguments: str, only: str | None = None) -> Settings:
    parser = argparse.ArgumentParser()
    add_settings(parser, only=only)
    return load_settings(parser.parse_args(arguments))


@pytest.mark.parametrize(
    "setting", [s for s in all_settings() if not s.secret], ids=lambda s: s.key
)
def test_every_setting_but_a_secret_is_an_option(setting) -> None:
    """With its description and default in the help."""
    parser = argparse.ArgumentParser()
    add_settings(parser)
    assert setting.option in parser.format_help()


def test_a_secret_is_no_option_and_its_value_is_not_repeated() -> None:
    """The process list shows options; the message says where to put the key instead."""
    with pytest.raises(ConfigError) as caught:
        refuse(["--upstream.api-key=tml-canary", "tml-canary"], configurable=True)
    assert "TINKEX_PROXY_UPSTREAM__API_KEY" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_options_reach_the_settings() -> None:
    loaded = parse("--port", "7", "--server.allowed-hosts", "a,b", "--batching.enabled", "no")
    assert loaded.server.port == 7
    assert loaded.server.allowed_hosts == ("a", "b")
    assert loaded.batching.enabled is False


def test_a_short_option_and_its_long_form_are_one() -> None:
    assert parse("--host", "localhost").server == parse("--server.host", "localhost").server


def test_the_file_option_is_read(tmp_path: Path) -> None:
    path = tmp_path / "proxy.toml"
    path.write_text("[server]\nport = 9\n")
    assert parse("--config", str(path)).server.port == 9


def test_a_command_may_take_one_section_only() -> None:
    assert parse("--port", "7", only="server").server.port == 7
    with pytest.raises(SystemExit):
        parse("--log.level", "debug", only="server")


def test_arguments_without_dashes_are_counted_not_shown() -> None:
    with pytest.raises(CommandError, match=r"1 argument\(s\) too many") as caught:
        refuse(["tml-canary"], configurable=True)
    assert caught.value.status == 2
