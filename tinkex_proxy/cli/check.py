"""`check`: would `serve` start with this configuration, and would it reach its upstream?"""

import argparse
from typing import Final

from tinkex_proxy.cli.exits import OK, UNAVAILABLE
from tinkex_proxy.cli.options import Commands, add_settings, load_settings
from tinkex_proxy.config import ConfigError, Settings, find_contradictions, find_warnings

__all__ = ["add"]

PATIENCE_S: Final = 5.0


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "check",
        help="validate the configuration and reach the upstream, without listening",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--offline", action="store_true", help="do not ask the upstream; configuration only"
    )
    add_settings(parser)
    parser.set_defaults(run=_run)


def _run(chosen: argparse.Namespace) -> int:
    settings = load_settings(chosen)
    contradictions = find_contradictions(settings)
    if contradictions:
        raise ConfigError(*contradictions)
    print("configuration: good")
    for warning in find_warnings(settings):
        print(f"warning: {warning}")
    if chosen.offline:
        return OK
    obstacle = _reach(settings)
    state = "reachable" if obstacle is None else obstacle
    print(f"upstream: {settings.upstream.base_url}: {state}")
    return OK if obstacle is None else UNAVAILABLE


def _reach(settings: Settings) -> str | None:
    """Ask the upstream whether it is there; give what is in the way, or None."""
    import httpx  # noqa: PLC0415 - 0.1 s that only this command needs

    key = settings.upstream.api_key
    headers = {} if key is None else {"x-api-key": key.get_secret_value()}
    url = f"{settings.upstream.base_url}/api/v1/healthz"
    try:
        # Like the proxy itself: no environment proxies, no redirects for a request with a key.
        with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
            status = client.get(url, headers=headers).status_code
    except httpx.TimeoutException:
        return f"does not answer within {PATIENCE_S:g} s"
    except httpx.HTTPError as error:
        return f"cannot be reached: {error}"
    if status in {401, 403}:
        said = "refuses the key" if key is not None else "wants a key: set upstream.api_key"
        return f"answers {status}: it {said}"
    return None if status < 300 else f"answers {status} to GET /api/v1/healthz"
