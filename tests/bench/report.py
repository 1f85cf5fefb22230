"""The page of measured figures, docs/performance.md: each benchmark writes its own part of it.

A part stands between two comments that do not show, `<!-- begin NAME -->` and `<!-- end NAME -->`.
What is around the parts is written by hand and stays as it is; a part that the page does not have
yet is put at its end. Pictures go into docs/images.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "performance.md"
IMAGES = DOCS / "images"


def write_section(name: str, markdown: str, page: Path = PAGE) -> None:
    """Put a benchmark's part in place of its former one, or at the end of the page.

    Args:
        name: names the part; letters, digits and hyphens.
        markdown: what it is to say, with its heading.
        page: the file.
    """
    text = page.read_text()
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    part = f"{begin}\n{markdown.strip()}\n{end}"
    former = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if former.search(text):
        written = former.sub(lambda _: part, text, count=1)
    else:
        written = f"{text.rstrip()}\n\n{part}\n"
    page.write_text(written)
