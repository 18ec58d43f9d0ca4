"""docs/reference/cli.md says what the program says."""

from pathlib import Path

from holdfast.cli.reference import PAGE, page

_ROOT = Path(__file__).parents[2]


def test_page_is_current() -> None:
    """If not: `.venv/bin/python -m holdfast.cli.reference`."""
    assert (_ROOT / PAGE).read_text() == page()


def test_page_has_every_subcommand() -> None:
    """A page made of nothing would be current too."""
    assert page().count("\n### `holdfast ") >= 15
