import json
from pathlib import Path

import pytest

from tinkex_proxy.config import Settings, masked, settings_table

README = Path(__file__).parents[2] / "README.md"


def test_a_secret_is_shown_as_set_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """GET /config says whether there is a key."""
    monkeypatch.setenv("TINKEX_PROXY_UPSTREAM__API_KEY", "tml-canary")
    shown = masked(Settings.load())
    assert shown["upstream"]["api_key"] == "********"  # type: ignore[index]
    assert "canary" not in json.dumps(shown)
    assert masked(Settings())["upstream"]["api_key"] is None  # type: ignore[index]


def test_everything_else_is_shown_as_it_is() -> None:
    shown = masked(Settings.load({"server.uds": "/run/p.sock", "batching.preferred_sizes": "8"}))
    assert shown["server"]["uds"] == "/run/p.sock"  # type: ignore[index]
    assert shown["batching"]["preferred_sizes"] == [8]  # type: ignore[index]
    assert set(shown) == set(Settings.model_fields)


def test_the_readme_has_the_table_of_this_code() -> None:
    """A default that changes changes there too: paste the output of `settings_table()`."""
    assert settings_table() in README.read_text()
