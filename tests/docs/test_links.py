"""Every link of the documentation leads somewhere."""

from pathlib import Path

import pytest
from tests.docs.pages import ROOT, anchors, exists, links, pages


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    """A link names a file that exists, and a heading that the file has."""
    broken = []
    for link in links(page):
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not exists(target) or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_reachable_from_the_readme() -> None:
    """Nobody finds a page that no other page links to."""
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not exists(page):
            continue
        seen.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert not {str(page.relative_to(ROOT)) for page in set(pages()) - seen}
