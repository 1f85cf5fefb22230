"""`status`: one look at a running proxy, for people, scripts and health checks."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tinkex_proxy.cli.exits import OK, UNAVAILABLE
from tinkex_proxy.cli.figures import count, duration, rate
from tinkex_proxy.cli.options import Commands
from tinkex_proxy.cli.place import add_place, connected, place_of, reported

if TYPE_CHECKING:
    import httpx

__all__ = ["add"]

_SECTIONS: Final = ("version", "breakers", "lanes")


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("status", help="look at a running proxy", allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="all of it, as one JSON object")
    parser.add_argument(
        "--health", action="store_true", help="say nothing but whether it is alive, by exit status"
    )
    add_place(parser)
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    place = place_of(chosen)
    with connected(place) as client, reported(place):
        if chosen.health:
            return OK if client.get("/health/live").status_code == 200 else UNAVAILABLE
        found = _look(client)
    print(json.dumps(found, indent=2) if chosen.json else "\n".join(_lines(place.url, found)))
    return OK if found["ready"] else UNAVAILABLE


def _look(client: "httpx.Client") -> dict[str, object]:
    health = client.get("/health/ready")
    found: dict[str, object] = {"ready": health.status_code == 200}
    if not found["ready"]:
        found["reason"] = health.json().get("reason", f"status {health.status_code}")
    for section in _SECTIONS:
        answer = client.get(f"/{section}").raise_for_status().json()
        found[section] = answer.get(section, answer) if section != "version" else answer
    now = client.get("/dashboard").raise_for_status().json()
    found["verdict"] = now["verdict"]["now"]
    found["last_minute"] = now["recent"]
    found["in_flight"] = now["admission"]["calls_in_flight"]
    return found


def _lines(url: str, found: Mapping[str, object]) -> Iterator[str]:
    version = found["version"]
    shown = dict(version) if isinstance(version, Mapping) else {}
    yield f"tinkex-proxy {shown.get('version')} on {url} for {shown.get('upstream')}"
    yield "ready" if found["ready"] else f"not ready: {found['reason']}"
    yield from _verdict(found["verdict"])
    yield _figures(found["last_minute"], found["in_flight"])
    yield from _table(
        "breaker", found["breakers"], ("id", "state", "consecutive_failures", "retry_after_s")
    )
    yield from _table(
        "lane",
        found["lanes"],
        ("model_id", "state", "depth", "awaiting_results", "calls", "requests", "queue_state"),
    )


def _verdict(verdict: object) -> Iterator[str]:
    """The headline, and what is not as it should be."""
    if isinstance(verdict, Mapping):
        yield f"verdict: {verdict['headline']}"
        for finding in verdict["findings"]:
            if finding["grade"] != "fine":
                yield f"  {finding['side']}: {finding['says']}"


def _figures(recent: object, in_flight: object) -> str:
    """The figures of the last minute."""
    if not isinstance(recent, Mapping):
        return ""
    took = [
        f"{name.upper()} {duration(None if ms is None else ms / 1000)}"
        for name in ("p50", "p95", "p99")
        for ms in [recent[f"{name}_ms"]]
    ]
    parts = [
        f"calls {rate(recent['ok'], recent['window_s'])}",
        f"failed {count(recent['failed'])}",
        f"in flight {in_flight}",
        *took,
    ]
    return f"last minute: {', '.join(parts)}"


def _table(kind: str, rows: object, columns: Sequence[str]) -> Iterator[str]:
    """One line a row, with the columns it has."""
    for row in rows if isinstance(rows, Sequence) else ():
        parts = [f"{name}={row[name]}" for name in columns[1:] if row.get(name) is not None]
        yield f"{kind} {row.get(columns[0])}: {' '.join(parts)}"
