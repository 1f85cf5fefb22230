"""Every series and every name of the snapshot is documented from the table that makes it."""

import re
from pathlib import Path

import pytest

from tinkex_proxy.runtime.series import SERIES, SNAPSHOT, Series, page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_the_tables() -> None:
    """To write it anew: python -c "from tinkex_proxy.runtime.series import page; print(page())"."""
    assert page() in PAGE.read_text()


def test_the_page_has_every_name() -> None:
    named = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.MULTILINE))
    assert named == {*SERIES, *SNAPSHOT}


@pytest.mark.parametrize("row", SERIES.values(), ids=lambda row: row.name)
def test_names_follow_prometheus(row: Series) -> None:
    assert re.fullmatch(r"(tinkex_proxy|http|process)_[a-z_]+", row.name)
    assert row.name.endswith("_total") is (row.kind == "counter")
    assert row.name.endswith("_info") is (row.kind == "info")
    assert not re.search(r"_(ms|milliseconds|kb|mb)(_|$)", row.name)
    assert bool(row.buckets) is (row.kind == "histogram")
    assert list(row.buckets) == sorted(row.buckets)
    assert row.text.endswith(".")
    assert "|" not in row.text
