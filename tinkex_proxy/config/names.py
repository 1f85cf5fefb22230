"""What a setting is called: `server.max_body_bytes`, as an option, as a variable; and its nearest.

One walk over the sections' fields feeds the command line, the README's table and the messages.
"""

import difflib
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from tinkex_proxy.config.sections import SECTIONS

__all__ = ["ENV_PREFIX", "Setting", "all_settings", "is_foreign_variable", "nearest"]

ENV_PREFIX: Final = "TINKEX_PROXY_"

# A Kubernetes service or Docker link called `tinkex-proxy` puts these into every container beside
# it; taking them for misspelt settings would keep the proxy from starting for its own name.
_ORCHESTRATOR = re.compile(
    r"SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|NAME"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        section: its section.
        name: its name within.
        field: its type, default and description.
    """

    section: str
    name: str
    field: FieldInfo

    @property
    def key(self) -> str:
        """Its full name, as in a TOML file."""
        return f"{self.section}.{self.name}"

    @property
    def option(self) -> str:
        """Its option on the command line."""
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return f"{ENV_PREFIX}{self.section}__{self.name}".upper()

    @property
    def secret(self) -> bool:
        """Whether its value must not be shown."""
        return SecretStr in (self.field.annotation, *_parts(self.field.annotation))

    @property
    def default(self) -> str:
        """Its default, written as in a TOML file; empty where there is none."""
        match self.field.default:
            case None:
                return ""
            case bool() as flag:
                return str(flag).lower()
            case tuple() as items:
                return "[" + ", ".join(map(repr, items)) + "]"
            case str() as text:
                return f'"{text}"'
            case number:
                return str(number)


def _parts(annotation: object) -> Iterator[object]:
    """Walk the types an annotation is made of."""
    for part in typing.get_args(annotation):
        yield part
        yield from _parts(part)


def all_settings() -> Iterator[Setting]:
    """Every setting, in the order of the sections."""
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            yield Setting(section, name, field)


def nearest(wrong: str) -> str:
    """Say which setting `wrong` may have meant, as the tail of a sentence.

    Args:
        wrong: a key as in a TOML file, or only its last part.
    """
    wrong = wrong.lower().replace("-", "_")

    def likeness(setting: Setting) -> float:
        last = wrong.rpartition(".")[2]
        by_name = difflib.SequenceMatcher(None, last, setting.name).ratio()
        by_key = difflib.SequenceMatcher(None, wrong, setting.key).ratio()
        return max(by_name - 0.01, by_key)  # the right section wins among equal names

    best = max(all_settings(), key=likeness)
    if likeness(best) >= 0.6:
        return f"; the nearest known setting is {best.key}"
    return f"; there are the sections {', '.join(SECTIONS)}"


def is_foreign_variable(name: str, value: str) -> bool:
    """Whether a variable with our prefix is an orchestrator's, not a setting of ours."""
    tail = name.removeprefix(ENV_PREFIX)
    return _ORCHESTRATOR.fullmatch(tail) is not None or (tail == "PORT" and "://" in value)
