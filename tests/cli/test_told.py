import pytest

from tests.cli.telling import telling
from tinkex_proxy.cli.told import read


def test_an_answer_is_read_as_far_as_it_is_shown() -> None:
    told = telling()
    assert (told.upstream, told.recent.p99_ms) == ("http://127.0.0.1:8466", None)


def test_another_programs_answer_is_none() -> None:
    with pytest.raises(ValueError, match="missing required field"):
        read(b"{}")
