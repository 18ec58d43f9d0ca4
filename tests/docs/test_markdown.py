"""Pages read the same on GitHub and in the site, whose Markdown is the stricter one."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, pages, text_of

_FENCE = re.compile(r"^( *)```.*?^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"(?P<indent> *)(?:[-*]|[0-9]+\.) ")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_lists_and_tables_are_set_apart(page: Path) -> None:
    """A list or table follows an empty line, and a list within a list is indented by four spaces."""
    lines = _FENCE.sub("```", text_of(page)).splitlines()
    in_list, wrong = False, []
    for before, line in pairwise(["", *lines]):
        item = _ITEM.match(line)
        if not before.strip():
            in_list = line.startswith(" ") and in_list
        if (item and before.strip() and not in_list) or (line.startswith("|") and before and before[0] != "|"):
            wrong.append(f"no empty line before: {line}")
        if item and len(item["indent"]) % 4:
            wrong.append(f"not indented by four: {line}")
        in_list = bool(item) or in_list
    assert not wrong


def test_every_page_is_in_the_menu_of_the_site() -> None:
    """`make docs` fails otherwise; decisions are added by tools/mkdocs_hooks.py."""
    menu = (ROOT / "mkdocs.yml").read_text()
    shown = [page.relative_to(ROOT / "docs").as_posix() for page in pages() if (ROOT / "docs") in page.parents]
    assert [name for name in shown if f": {name}\n" not in menu and not name.startswith("decisions/")] == []
