"""The table of a soak's figures, and its place in docs/reliability.md."""

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- soak: made by `make soak WRITE=1` -->", "<!-- end of soak -->"


def table(figures: Mapping[str, object]) -> str:
    """As Markdown."""
    rows = [f"| {name} | {value} |" for name, value in figures.items()]
    return "\n".join(["| figure | |", "|---|---|", *rows])


def put(page: str, made: str) -> str:
    """The page with this table in the place of the one it has."""
    place = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if place.search(page) is None:
        raise ValueError(f"the page has no place for the table: {BEGIN} … {END}")
    return place.sub(lambda _: f"{BEGIN}\n\n{made}\n\n{END}", page)
