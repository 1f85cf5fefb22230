"""Every setting as an option, made from the settings themselves."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from tinkex_proxy.cli.exits import CommandError
from tinkex_proxy.config import ConfigError, Settings
from tinkex_proxy.config.names import Setting, all_settings, nearest

__all__ = ["Commands", "add_settings", "load_settings", "refuse"]

# The four that one types by hand.
SHORT: Final = {"server.host": "--host", "server.port": "--port", "server.uds": "--uds"}
USAGE_ERROR: Final = 2


class Commands(Protocol):
    """Where a command adds its parser."""

    def add_parser(self, name: str, *, help: str, allow_abbrev: bool) -> argparse.ArgumentParser:  # noqa: A002 - argparse's name
        """Add it."""
        ...


def add_settings(parser: argparse.ArgumentParser, *, only: str | None = None) -> None:
    """Give a command the settings as options.

    Args:
        parser: the command's.
        only: a section to restrict them to.
    """
    parser.set_defaults(configurable=True)
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="TOML file with settings; TINKEX_PROXY_CONFIG names one too",
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in all_settings():
        if setting.secret or (only is not None and setting.section != only):
            continue  # the process list shows options to every user of the machine
        if setting.section not in groups:
            groups[setting.section] = parser.add_argument_group(setting.section)
        _add(groups[setting.section], setting)


def _add(group: argparse._ArgumentGroup, setting: Setting) -> None:
    short = SHORT.get(setting.key)
    default = f" [{setting.default}]" if setting.default else ""
    group.add_argument(
        *([short] if short else []),
        setting.option,
        dest=setting.key,
        default=argparse.SUPPRESS,
        metavar="VALUE",
        help=f"{setting.field.description}{default}".replace("%", "%%"),
    )


def load_settings(chosen: argparse.Namespace) -> Settings:
    """Read the configuration that the options, the environment and the file make.

    Raises:
        ConfigError: it cannot be used.
    """
    values = {key: value for key, value in vars(chosen).items() if "." in key}
    config_file: Path | None = chosen.config
    return Settings.load(values, config_file)


def refuse(unknown: Sequence[str], *, configurable: bool) -> None:
    """Refuse arguments nobody knows.

    Args:
        unknown: what the parser left over.
        configurable: whether settings are options of this command.

    Raises:
        ConfigError: one of them was meant as a setting.
        CommandError: it was not.
    """
    named = [argument.partition("=")[0] for argument in unknown if argument.startswith("--")]
    if not configurable or not named:
        # A value may be a secret that slipped: say no more than its place.
        said = ", ".join(named) or f"{len(unknown)} argument(s) too many"
        raise CommandError(f"unknown: {said}; see --help", status=USAGE_ERROR)
    raise ConfigError(*map(_problem, named))


def _problem(option: str) -> str:
    secrets = {setting.option: setting for setting in all_settings() if setting.secret}
    if option in secrets:
        return (
            f"{option} is not an option, because the process list shows options to every user: "
            f"set {secrets[option].variable}, or {secrets[option].key} in a file with mode 0600"
        )
    return f"unknown option {option}{nearest(option.removeprefix('--'))}"
