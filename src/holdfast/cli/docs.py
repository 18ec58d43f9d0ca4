"""`holdfast docs`: the documentation of this very version, where it is installed."""

import difflib
import sys
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.tables import table
from holdfast.control.errors import NotFound, Prerequisite

app = typer.Typer()

_CHECKOUT = Path(__file__).parents[3]
_INSTALLED = Path(sys.prefix, "share/holdfast")
"""Where the wheel puts documentation, examples, the systemd unit and the alert rules."""


@app.command()
def docs(
    page: Annotated[
        str | None, typer.Argument(help="A page's name, such as production. Default: list them.", show_default=False)
    ] = None,
) -> None:
    """List the pages of the documentation, or print one.

    Examples of configurations, the systemd unit, alert rules and the dashboard are beside them.
    """
    folder = documentation()
    pages = {path.stem: path for path in sorted(folder.rglob("*.md")) if path.stem != "README"}
    if page is None:
        output.say(f"In {folder.parent}:\n")
        listed = sorted(pages.items(), key=lambda page: page[1].parent.name == "decisions")
        titles = [(name, path.read_text().partition("\n")[0].lstrip("# ")) for name, path in listed]
        table(("PAGE", "TITLE"), titles, empty="There is no page.")
        return
    name = Path(page).stem
    if name not in pages:
        near = difflib.get_close_matches(name, pages, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`holdfast docs` lists them."
        raise NotFound(f"no page is named {page!r}", hint=hint)
    output.data(pages[name].read_text().rstrip())


def documentation() -> Path:
    """The folder of the pages. Raises Prerequisite where they were not installed."""
    for place in (_CHECKOUT, _INSTALLED):
        if (place / "docs" / "tutorial.md").is_file():
            return place / "docs"
    raise Prerequisite(
        f"the documentation is not installed: {_INSTALLED} has none",
        hint="It is in Holdfast's source, in the directory docs.",
    )
