import argparse
from pathlib import Path

import pytest

from tinkex_proxy.cli.exits import CommandError
from tinkex_proxy.cli.place import Place, add_place, connected, place_of, reported, url_of
from tinkex_proxy.config import Settings


def chosen(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_place(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "http://127.0.0.1:8465"),
        ({"server.host": "::"}, "http://[::1]:8465"),
        ({"server.host": "0.0.0.0"}, "http://127.0.0.1:8465"),
        ({"server.host": "proxy", "server.port": "80"}, "http://proxy:80"),
        ({"server.uds": "/run/p.sock"}, "http://localhost"),
    ],
)
def test_urls_are_made_from_settings(options: dict[str, str], url: str) -> None:
    assert url_of(Settings.load(options)) == url


def test_a_url_that_is_named_is_taken_as_it_is() -> None:
    place = place_of(chosen("--url", "http://proxy:1", "--uds", "/none.sock"))
    assert (place, place.name) == (Place("http://proxy:1"), "http://proxy:1")


def test_a_socket_that_is_none_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    with pytest.raises(CommandError, match=f"no proxy answers on {path}: there is no such socket"):
        place_of(chosen("--uds", str(path)))


def test_whatever_a_request_comes_to_is_a_word_for_a_person() -> None:
    place = Place("http://127.0.0.1:9")
    with (
        connected(place) as client,
        pytest.raises(CommandError, match=r"no proxy answers on http://127\.0\.0\.1:9: "),
        reported(place),
    ):
        client.get("/health/live")


def test_a_url_that_is_none_is_told_plainly() -> None:
    with pytest.raises(CommandError, match="no proxy answers on"), connected(Place("http://a:b:c")):
        pass
