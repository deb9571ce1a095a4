"""docs/failures.md names files and tests that exist."""

import re

import pytest

from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "failures.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if re.match(r"\| \d+ \|", line)]
# A link, and the tests named behind it, up to the next link or column.
HELD = re.compile(r"\[[^]]+\]\(([^)]+)\)([^;|\[]*)")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[2].strip())
def test_a_row_names_tests_that_exist(row: str) -> None:
    _, _, failure, does, held, still_open, _ = (cell.strip() for cell in row.split("|"))
    assert failure and does and still_open
    links = HELD.findall(held)
    assert links
    for link, behind in links:
        source = (PAGE.parent / link).read_text(encoding="utf-8")
        names = re.findall(r"`(\w+)`", behind)
        assert names, link
        for name in names:
            assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{link}: {name}"


def test_every_link_of_the_page_leads_somewhere() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (PAGE.parent / link).exists(), link


def test_there_are_nineteen_groups_and_the_readme_leads_to_them() -> None:
    assert [int(row.split("|")[1]) for row in ROWS] == list(range(1, 20))
    assert "](docs/failures.md)" in (REPOSITORY / "README.md").read_text(encoding="utf-8")
