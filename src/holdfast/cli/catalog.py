"""`holdfast catalog`: the catalog as a whole."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out, carry_out_and_say, changing, say_done
from holdfast.cli.confirm import confirm
from holdfast.cli.options import ConfigOption, Installation, JsonOption, installation
from holdfast.cli.tables import fields
from holdfast.control.actions.catalogs import AcceptEntries, ImportCatalog, RevertEntries
from holdfast.control.errors import Invalid
from holdfast.control.explanations import Explanation
from holdfast.control.files import create_file
from holdfast.reading import read_file
from holdfast.store.errors import Unavailable
from holdfast.store.memory import Memory, MemoryFile
from holdfast.store.transfer import Export
from holdfast.store.view import View

_ATTEMPTS = 100
_PAUSE = 0.05
"""Seconds between two attempts to write what this machine remembers."""

app = typer.Typer(help="The catalog as a whole: show, accept, revert, export, import.", no_args_is_help=True)


@app.command()
def show(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the catalog's version, what is in it, and whether this machine believes it."""
    with installation(config, changes=False) as here:
        view = View()
        here.catalog.refresh(view)
        remembered = MemoryFile(here.configuration.catalog.state_file).read()
    doubt = None if remembered is None else remembered.doubt or remembered.doubt_of(Memory.of(view))
    row = {
        "catalog": here.configuration.catalog.url,
        "version": view.version,
        "keystores": len(view.keystores),
        "keys": sum(len(keystore.keys) for keystore in view.keystores.values()),
        "live_credentials": len(view.live),
        "bad_rows": list(view.bad_rows),
        "unexplained": list(view.unexplained),
        "doubt": doubt,
    }
    if as_json:
        output.json(row)
        return
    counts = {"bad_rows": len(view.bad_rows), "unexplained": len(view.unexplained)}
    fields(row | counts | {"doubt": doubt or "none"})
    for sentence in (*view.bad_rows, *view.unexplained):
        output.warning(sentence)


@app.command()
@changing
def accept(
    entries: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ENTRY]...", help="Only these, such as key/17, as `catalog show` names them."),
    ] = None,
    *,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Believe the catalog as it is: what was changed without a record, and what this machine knew better.

    Entries that somebody changed in the database become the record, for all nodes. Without ENTRY also the machine
    that has seen a newer or stricter catalog believes this one. Each machine with a proxy remembers for itself: run
    it on each. Restoring a backup makes it necessary.
    """
    with installation(config) as here:
        action = AcceptEntries(entries=tuple(entries or ()))
        done = carry_out(here, action, how)
        say_done(here, action, done)
        if not entries:
            _believe(here, how, nothing_else=done is None)


@app.command()
@changing
def revert(
    entries: Annotated[list[str], typer.Argument(metavar="ENTRY...", help="Such as key/17.")],
    *,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Put back what is recorded of entries that somebody changed in the database."""
    with installation(config) as here:
        carry_out_and_say(here, RevertEntries(entries=tuple(entries)), how)


def _believe(here: Installation, how: How, *, nothing_else: bool) -> None:
    """Have this machine believe the catalog, after it has seen a newer or stricter one."""
    view = View()
    here.catalog.refresh(view)
    found = Memory.of(view)
    file = MemoryFile(here.configuration.catalog.state_file)
    try:
        remembered = file.read()
    except Unavailable as damaged:
        output.warning(damaged.message)
        remembered = None
    doubt = None if remembered is None else remembered.doubt or remembered.doubt_of(found)
    if remembered is not None and doubt is None:
        if nothing_else:
            output.say(f"The catalog is believed at version {found.version}: there is nothing to accept.")
        return
    changes = () if remembered is None else tuple(remembered.looser(found))
    confirm(
        Explanation(
            f"Believe the catalog at version {found.version}, although {doubt or 'nothing is remembered'}:",
            changes or ("nothing that stood still starts again",),
            ("The proxies of this machine take it over within a second. Other machines are not reached.",),
        ),
        yes=how.yes,
    )
    for _ in range(_ATTEMPTS):
        if file.write(found):
            break
        time.sleep(_PAUSE)
        with suppress(Unavailable):
            file.read()  # a worker wrote it meanwhile: what it remembered is what is replaced
    else:
        raise Unavailable(
            f"{file.path} cannot be replaced: another process keeps its directory locked;"
            f" `fuser -v {file.path.parent}` shows which"
        )
    output.say(f"This machine believes the catalog at version {found.version}.")


@app.command()
def export(
    *,
    output_file: Annotated[
        Path | None,
        typer.Option("--output", help="Write to this new file. Default: standard output.", show_default=False),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Write the catalog as JSON, without secrets, for `catalog import` on another database."""
    with installation(config, changes=False) as here:
        document = here.catalog.export()
    if output_file is None:
        output.data(document.to_json().decode().rstrip())
    else:
        create_file(output_file, document.to_json())
        output.say(f"Wrote version {document.version} of the catalog to {output_file}.")
    if document.running:
        output.warning(
            f"proxies seen within the last minute: {document.running}. What they count from now on is not in the"
            " export: to move the catalog, stop every proxy before you export."
        )


@app.command("import")
@changing
def import_(
    file: Annotated[Path, typer.Argument(help="What `catalog export` wrote; - for standard input.")],
    *,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Read an export into an empty catalog. `holdfast init` or `catalog import` makes its tables."""
    try:
        document = Export.parse(sys.stdin.buffer.read() if str(file) == "-" else read_file(file, pipe=True))
    except OSError as error:
        raise Invalid(f"{file} cannot be read: {error.strerror}") from None
    with installation(config, create=True) as here:
        action = ImportCatalog(document=document)
        done = carry_out(here, action, how)
        output.say(f"The catalog has the version {here.catalog.version()}. `holdfast doctor` checks it.")
        say_done(here, action, done)
