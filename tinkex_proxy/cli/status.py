"""`status`: one look at a running proxy, for people, scripts and health checks."""

import argparse
import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tinkex_proxy.cli.exits import OK, UNAVAILABLE, CommandError
from tinkex_proxy.cli.options import Commands, add_settings, load_settings
from tinkex_proxy.config import Settings

if TYPE_CHECKING:
    import httpx

__all__ = ["add"]

PATIENCE_S: Final = 5.0
_SECTIONS: Final = ("version", "breakers", "lanes")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("status", help="look at a running proxy", allow_abbrev=False)
    parser.add_argument("--url", help="its URL; otherwise it is found by the settings")
    parser.add_argument("--json", action="store_true", help="all of it, as one JSON object")
    parser.add_argument(
        "--health", action="store_true", help="say nothing but whether it is alive, by exit status"
    )
    add_settings(parser, only="server")
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    import httpx  # noqa: PLC0415 - 0.1 s that not every command needs

    settings = load_settings(chosen)
    url = chosen.url or _url(settings)
    uds = None if chosen.url or settings.server.uds is None else str(settings.server.uds)
    if uds is not None and not Path(uds).is_socket():
        raise CommandError(f"no proxy answers on {uds}: there is no such socket")
    transport = httpx.HTTPTransport(uds=uds)
    try:
        with httpx.Client(base_url=url, transport=transport, timeout=PATIENCE_S) as client:
            if chosen.health:
                return OK if client.get("/health/live").status_code == 200 else UNAVAILABLE
            found = _look(client)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        place = uds or url
        raise CommandError(f"no proxy answers on {place}: {error}") from error
    print(json.dumps(found, indent=2) if chosen.json else "\n".join(_lines(url, found)))
    return OK if found["ready"] else UNAVAILABLE


def _url(settings: Settings) -> str:
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


def _look(client: "httpx.Client") -> dict[str, object]:
    health = client.get("/health/ready")
    found: dict[str, object] = {"ready": health.status_code == 200}
    if not found["ready"]:
        found["reason"] = health.json().get("reason", f"status {health.status_code}")
    for section in _SECTIONS:
        answer = client.get(f"/{section}").raise_for_status().json()
        found[section] = answer.get(section, answer) if section != "version" else answer
    return found


def _lines(url: str, found: Mapping[str, object]) -> Iterator[str]:
    version = found["version"]
    shown = dict(version) if isinstance(version, Mapping) else {}
    yield f"tinkex-proxy {shown.get('version')} on {url} for {shown.get('upstream')}"
    yield "ready" if found["ready"] else f"not ready: {found['reason']}"
    yield from _table(
        "breaker", found["breakers"], ("id", "state", "consecutive_failures", "retry_after_s")
    )
    yield from _table(
        "lane",
        found["lanes"],
        ("model_id", "state", "depth", "awaiting_results", "calls", "requests", "queue_state"),
    )


def _table(kind: str, rows: object, columns: Sequence[str]) -> Iterator[str]:
    """One line a row, with the columns it has."""
    for row in rows if isinstance(rows, Sequence) else ():
        parts = [f"{name}={row[name]}" for name in columns[1:] if row.get(name) is not None]
        yield f"{kind} {row.get(columns[0])}: {' '.join(parts)}"
