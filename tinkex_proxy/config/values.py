"""The kinds of value a setting can have, each with its own check and sentence."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

__all__ = ["BindHost", "HostNames", "Names", "Secret", "SecretHeaders", "Sizes", "Url"]

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _list(value: object) -> object:
    """Take `a,b` where a list is meant: variables and options are flat text."""
    if not isinstance(value, str):
        return value
    return [part for piece in value.strip("[] ").split(",") if (part := piece.strip(" \"'"))]


def _origin(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold credentials; a key belongs in upstream.api_key")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    return value.rstrip("/")


def _key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("must be one line of printable ASCII without spaces")
    return value


def _header_list(value: SecretStr) -> SecretStr:
    for pair in value.get_secret_value().split(","):
        name, equals, said = pair.partition("=")
        if not (equals and _HEADER_NAME.fullmatch(name.strip()) and said.strip()):
            raise ValueError("must be name=value pairs with commas between, values percent-encoded")
    return value


def _bind_host(value: str) -> str:
    host = value.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[\w.:%-]+", host):
        raise ValueError("must be a host name or an IP address (0.0.0.0 for all of IPv4)")
    return host


def _host_name(value: str) -> str:
    if "*" in value:
        raise ValueError("takes no patterns: with '*' every web page could pose as a local caller")
    if not _HOST_NAME.fullmatch(value):
        raise ValueError("takes host names alone, without scheme, port or path")
    return value.lower()


Url = Annotated[str, AfterValidator(_origin)]
Secret = Annotated[SecretStr, AfterValidator(_key)]
SecretHeaders = Annotated[SecretStr, AfterValidator(_key), AfterValidator(_header_list)]
BindHost = Annotated[str, AfterValidator(_bind_host)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_list)]
HostNames = Annotated[
    tuple[Annotated[str, AfterValidator(_host_name)], ...], NoDecode, BeforeValidator(_list)
]
Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], NoDecode, BeforeValidator(_list)]
