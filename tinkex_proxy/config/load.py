"""From four layers to one frozen object, or to every problem at once.

Each layer is checked for unknown names by itself, because only then can the message say where the
name stands. Values are checked after merging, by the fields' own types.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from tinkex_proxy.config import names
from tinkex_proxy.config.faults import ConfigError
from tinkex_proxy.config.sections import (
    AdmissionSettings,
    BatchingSettings,
    CallsSettings,
    CircuitBreakerSettings,
    JournalSettings,
    LogSettings,
    MetricsSettings,
    SdkSettings,
    ServerSettings,
    TracingSettings,
    UpstreamSettings,
)

__all__ = ["STATE_VARIABLE", "Settings", "environment_without_settings", "wants_colour"]

FILE_VARIABLE: Final = "TINKEX_PROXY_CONFIG"
STATE_VARIABLE: Final = "TINKEX_PROXY_STATE_DIR"
KEY_VARIABLE: Final = "TINKER_API_KEY"
KEY_START: Final = "tml-"
HOSTED_DOMAIN: Final = "thinkingmachines.dev"

# (section, name) -> (value, where it was set)
Layer = dict[tuple[str, str], tuple[object, str]]


class Settings(BaseSettings):
    """Everything that can be set. `Settings()` is the defaults; `load` reads what the user set."""

    model_config = SettingsConfigDict(
        env_prefix=names.ENV_PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,  # compose files write `${NAME:-}` for "not set"
        extra="forbid",
        frozen=True,
    )

    server: ServerSettings = Field(default_factory=ServerSettings)
    upstream: UpstreamSettings = Field(default_factory=UpstreamSettings)
    circuit_breaker: CircuitBreakerSettings = Field(default_factory=CircuitBreakerSettings)
    batching: BatchingSettings = Field(default_factory=BatchingSettings)
    sdk: SdkSettings = Field(default_factory=SdkSettings)
    calls: CallsSettings = Field(default_factory=CallsSettings)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    admission: AdmissionSettings = Field(default_factory=AdmissionSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)
    log: LogSettings = Field(default_factory=LogSettings)
    tracing: TracingSettings = Field(default_factory=TracingSettings)

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing but arguments: `load` asks the other sources itself, layer by layer."""
        return (init_settings,)

    @classmethod
    def load(
        cls, options: Mapping[str, object] | None = None, config_file: Path | None = None
    ) -> Self:
        """Read all four layers.

        Args:
            options: what the command line set, by full name (`server.port`).
            config_file: a TOML file; None takes `TINKEX_PROXY_CONFIG`, if that is set.

        Raises:
            ConfigError: something is unknown, or not what it must be.
        """
        problems: list[str] = []
        layers = [
            _option_layer(options or {}, problems),
            _environment_layer(cls, problems),
            _file_layer(cls, config_file, problems),
            _fallback_layer(),
        ]
        if problems:
            raise ConfigError(*problems)
        merged: dict[str, dict[str, object]] = {}
        for layer in reversed(layers):
            for (section, name), (value, _) in layer.items():
                merged.setdefault(section, {})[name] = value
        origins = {at: origin for layer in reversed(layers) for at, (_, origin) in layer.items()}
        try:
            settings = cls.model_validate(merged)
        except ValidationError as error:
            raise ConfigError(*(_sentence(one, origins) for one in error.errors())) from None
        _check_key(settings, origins)
        return settings


def _option_layer(options: Mapping[str, object], problems: list[str]) -> Layer:
    known = {setting.key: setting for setting in names.all_settings()}
    problems += [
        f"unknown option {key!r}{names.nearest(key)}" for key in options if key not in known
    ]
    return {
        (known[key].section, known[key].name): (value, known[key].option)
        for key, value in options.items()
        if key in known
    }


def _environment_layer(settings: type[BaseSettings], problems: list[str]) -> Layer:
    known = {setting.variable: setting for setting in names.all_settings()}
    for variable, value in os.environ.items():
        upper = variable.upper()
        if not upper.startswith(names.ENV_PREFIX) or upper in {
            *known,
            FILE_VARIABLE,
            STATE_VARIABLE,
        }:
            continue
        if not names.is_foreign_variable(upper, value):
            key = upper.removeprefix(names.ENV_PREFIX).replace("__", ".")
            problems.append(f"unknown variable {variable}{names.nearest(key)}")
    if problems:
        return {}
    short = os.environ.get(STATE_VARIABLE)
    layer: Layer = {("journal", "state_dir"): (short, STATE_VARIABLE)} if short else {}
    return layer | {
        (section, name): (value, f"{names.ENV_PREFIX}{section}__{name}".upper())
        for section, values in EnvSettingsSource(settings)().items()
        for name, value in values.items()
    }


def _file_layer(settings: type[BaseSettings], path: Path | None, problems: list[str]) -> Layer:
    if path is None:
        named = os.environ.get(FILE_VARIABLE)
        if not named:
            return {}
        path = Path(named)
    try:
        mode = path.stat().st_mode
        tables = TomlConfigSettingsSource(settings, path).toml_data
    except OSError as error:
        problems.append(f"cannot read the file {path}: {error.strerror}")
        return {}
    except ValueError as error:
        problems.append(f"{path} is not TOML: {error}")
        return {}
    layer = dict(_entries(tables, path, problems))
    if ("upstream", "api_key") in layer and mode & (stat.S_IRWXG | stat.S_IRWXO):
        problems.append(
            f"{path} holds upstream.api_key and others may read it "
            f"(mode {stat.S_IMODE(mode):04o}): run `chmod 600 {path}`, or set "
            "TINKEX_PROXY_UPSTREAM__API_KEY instead"
        )
    return layer


def _entries(
    tables: Mapping[str, object], path: Path, problems: list[str]
) -> Iterator[tuple[tuple[str, str], tuple[object, str]]]:
    known = {(setting.section, setting.name) for setting in names.all_settings()}
    sections = {section for section, _ in known}
    for section, table in tables.items():
        if section not in sections:
            problems.append(f"unknown name {section} in {path}{names.nearest(section)}")
        elif not isinstance(table, dict):
            problems.append(f"{section} in {path} must be a table: [{section}]")
        else:
            for name, value in table.items():
                if (section, name) in known:
                    yield (section, name), (value, str(path))
                else:
                    wrong = f"{section}.{name}"
                    problems.append(f"unknown name {wrong} in {path}{names.nearest(wrong)}")


def _fallback_layer() -> Layer:
    key = os.environ.get(KEY_VARIABLE)
    return {("upstream", "api_key"): (SecretStr(key), KEY_VARIABLE)} if key else {}


def _sentence(error: ErrorDetails, origins: Mapping[tuple[str, str], str]) -> str:
    """One problem of a value: the setting, where it was set, what it must be, what it is."""
    section, name = str(error["loc"][0]), str(error["loc"][1])
    setting = next(s for s in names.all_settings() if (s.section, s.name) == (section, name))
    must = error["msg"].removeprefix("Value error, ")
    # A sentence of our own needs no value, and a URL it refuses may hold a password.
    shown = "" if setting.secret or error["type"] == "value_error" else f", got {error['input']!r}"
    return f"{setting.key} (from {origins[section, name]}): {must}{shown}"


def _check_key(settings: Settings, origins: Mapping[tuple[str, str], str]) -> None:
    key, host = settings.upstream.api_key, urlsplit(settings.upstream.base_url).hostname or ""
    hosted = host == HOSTED_DOMAIN or host.endswith("." + HOSTED_DOMAIN)
    if key is not None and hosted and not key.get_secret_value().startswith(KEY_START):
        raise ConfigError(
            f"upstream.api_key (from {origins['upstream', 'api_key']}) does not start with "
            f"{KEY_START!r}, as every key of {host} does"
        )


def wants_colour() -> bool:
    """Whether a terminal may have colours: not where `NO_COLOR` says anything (no-color.org)."""
    return not os.environ.get("NO_COLOR")


def environment_without_settings() -> dict[str, str]:
    """This process's environment for a child that must not take over its settings or its key."""
    ours = (names.ENV_PREFIX, "TINKER_")
    return {name: value for name, value in os.environ.items() if not name.upper().startswith(ours)}
