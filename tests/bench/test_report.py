"""A part of the page replaces its former self and nothing else."""

from tests.bench.report import write_section


def test_a_new_part_goes_to_the_end_and_its_next_version_in_its_place(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nBy hand.\n")
    write_section("one", "## One\n\n1", page)
    write_section("two", "## Two", page)
    write_section("one", r"## One\1", page)
    assert page.read_text() == (
        "# Title\n\nBy hand.\n\n"
        "<!-- begin one -->\n## One\\1\n<!-- end one -->\n\n"
        "<!-- begin two -->\n## Two\n<!-- end two -->\n"
    )
