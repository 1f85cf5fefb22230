"""Where a running proxy is, for the commands that look at one."""

import argparse
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tinkex_proxy.cli.exits import CommandError
from tinkex_proxy.cli.options import add_settings, load_settings
from tinkex_proxy.config import Settings

if TYPE_CHECKING:
    import httpx

__all__ = ["Place", "add_place", "connected", "place_of", "reported", "url_of"]

PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy is.

    Attributes:
        url: its URL; over a Unix socket only a form.
        uds: its Unix socket, if it listens on one.
    """

    url: str
    uds: str | None = None

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.uds or self.url


def add_place(parser: argparse.ArgumentParser) -> None:
    """Give a command the options that say where a proxy is."""
    parser.add_argument("--url", help="its URL; otherwise it is found by the settings")
    add_settings(parser, only="server")


def place_of(chosen: argparse.Namespace) -> Place:
    """Where the options say that it is.

    Raises:
        ConfigError: the configuration cannot be used.
        CommandError: there is no such socket.
    """
    settings = load_settings(chosen)
    if chosen.url:
        return Place(chosen.url)
    uds = None if settings.server.uds is None else str(settings.server.uds)
    if uds is not None and not Path(uds).is_socket():
        raise CommandError(f"no proxy answers on {uds}: there is no such socket")
    return Place(url_of(settings), uds)


def url_of(settings: Settings) -> str:
    """Where a proxy with these settings is reached from this machine."""
    host = settings.server.host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if address.is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    host = f"[{host}]" if ":" in host else host
    return "http://localhost" if settings.server.uds else f"http://{host}:{settings.server.port}"


@contextmanager
def connected(place: Place, *, patience_s: float = PATIENCE_S) -> Iterator["httpx.Client"]:
    """A client of the proxy there.

    Raises:
        CommandError: the place is none.
    """
    import httpx  # noqa: PLC0415 - 0.1 s that not every command needs

    with reported(place):
        client = httpx.Client(
            base_url=place.url,
            transport=httpx.HTTPTransport(uds=place.uds),
            timeout=patience_s,
        )
    with client:
        yield client


@contextmanager
def reported(place: Place) -> Iterator[None]:
    """Turn whatever a request of a client comes to into a word for a person.

    Raises:
        CommandError: it was not answered as a proxy answers.
    """
    import httpx  # noqa: PLC0415

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise CommandError(f"no proxy answers on {place.name}: {error}") from error
