"""`holdfast report`: what auditors and those who answer to them ask for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.options import ConfigOption, JsonOption, installation
from holdfast.cli.tables import table
from holdfast.config.model import Configuration
from holdfast.control.actor import current_actor
from holdfast.control.errors import Invalid
from holdfast.control.files import create_file
from holdfast.control.reports import devices, evidence, keys, people
from holdfast.control.reports.document import Report
from holdfast.control.reports.render import Format, render
from holdfast.control.reports.source import Source
from holdfast.reading import open_file, read_file

app = typer.Typer(help="Reports: keys, people, what was done, what hangs on a key.", no_args_is_help=True)

FormatOption = Annotated[Format, typer.Option("--format", help="md, csv, json or html.", show_default=True)]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", help="A new file, instead of standard output. It is never overwritten."),
]
_MODE = 0o640


@app.callback()
def report() -> None:
    """Reports: keys, people, what was done, what hangs on a key."""


@app.command("list")
def list_(*, as_json: JsonOption = False) -> None:
    """List the reports, and what each answers."""
    rows = [
        {
            "name": command.name or command.callback.__name__,
            "answers": " ".join((command.callback.__doc__ or "").split()),
        }
        for command in app.registered_commands
        if command.callback is not None and command.name != "list"
    ]
    if as_json:
        output.json(rows)
        return
    table(("REPORT", "ANSWERS"), [(str(row["name"]), str(row["answers"])) for row in rows], empty="")


@app.command()
def inventory(*, config: ConfigOption = None, format_: FormatOption = Format.MD, to: OutputOption = None) -> None:
    """Which keys there are, what they are for, whose they are, and in which HSM they lie."""
    _write(config, keys.inventory, format_, to)


@app.command()
def cryptoperiods(*, config: ConfigOption = None, format_: FormatOption = Format.MD, to: OutputOption = None) -> None:
    """Which generations encrypt, or are kept for decryption, for longer than was decided."""
    _write(config, keys.cryptoperiods, format_, to)


@app.command()
def transitions(*, config: ConfigOption = None, format_: FormatOption = Format.MD, to: OutputOption = None) -> None:
    """Which key came into which state when, by whom, with whose approval, and where the proof is."""
    _write(config, evidence.transitions, format_, to)


@app.command()
def duties(*, config: ConfigOption = None, format_: FormatOption = Format.MD, to: OutputOption = None) -> None:
    """Who may ask for what and approve what, and what one person could do alone."""
    _write(config, people.duties, format_, to)


@app.command()
def access(*, config: ConfigOption = None, format_: FormatOption = Format.MD, to: OutputOption = None) -> None:
    """Which people and credentials have access, since when, and whether they still use it."""
    _write(config, people.access, format_, to)


@app.command()
def revocation(
    *,
    events: Annotated[
        list[Path] | None,
        typer.Option(help="An event log, of any node. Repeatable. Default: that of this node.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    format_: FormatOption = Format.MD,
    to: OutputOption = None,
) -> None:
    """When a key store was blocked, from when on it was refused, and when it served again."""

    def make(source: Source) -> Report:
        own = source.configuration.log.events
        files = events or ([own] if own is not None and own.exists() else [])
        names = ", ".join(map(str, files))
        seen = f"Events are those in {names}." if files else "There was no event log to read: `--events` names some."
        return evidence.revocation(source, _lines(files), seen=seen)

    _write(config, make, format_, to)


@app.command()
def recovery(*, config: ConfigOption = None, format_: FormatOption = Format.MD, to: OutputOption = None) -> None:
    """Which generations another HSM has opened than the one that serves, and when."""
    _write(config, evidence.recovery, format_, to)


@app.command()
def reconciliation(
    *,
    log: Annotated[list[Path], typer.Option(help="The audit log of a node, or a copy. Repeatable.")],
    cloudtrail: Annotated[
        list[Path], typer.Option(help="A file of CloudTrail (.json, .json.gz), or a directory of them. Repeatable.")
    ],
    key: Annotated[
        list[str], typer.Option(help="A verifier key of the log (NAME+ID+KEY), or a file with one. Repeatable.")
    ],
    config: ConfigOption = None,
    format_: FormatOption = Format.MD,
    to: OutputOption = None,
) -> None:
    """Whether AWS's log of KMS says the same as the audit logs of the nodes."""
    from holdfast.cli.reconcile import compared  # noqa: PLC0415 (the others need no audit log)

    result, lost = compared(log, cloudtrail, key)
    of = f"Compared were the logs {', '.join(map(str, log))} and the trail {', '.join(map(str, cloudtrail))}."
    _write(config, lambda source: evidence.reconciliation(source, result, lost=lost, of=of), format_, to)


@app.command("devices")
def devices_(*, config: ConfigOption = None, format_: FormatOption = Format.MD, to: OutputOption = None) -> None:
    """Which certificates are in use and trusted, until when, and which devices hold keys."""
    _write(config, devices.devices, format_, to)


@app.command("exit")
def exit_(*, config: ConfigOption = None, format_: FormatOption = Format.MD, to: OutputOption = None) -> None:
    """What hangs on each key, how it is moved away, and how long that takes at least."""
    _write(config, keys.exit_plan, format_, to)


def _write(config: Path | None, make: Callable[[Source], Report], format_: Format, to: Path | None) -> None:
    with _source(config) as source:
        text = render(make(source), format_)
    if to is None:
        output.data(text.rstrip("\n"))
        return
    create_file(to, text.encode(), mode=_MODE)
    output.say(f"The report is in {to}.")


@contextmanager
def _source(config: Path | None) -> Iterator[Source]:
    with installation(config, changes=False) as here:
        rows = here.catalog.changes()
        with here.catalog.reading() as state:
            yield Source(
                here.configuration, state, current_actor(), output.utc_now(), rows, _policy_text(here.configuration)
            )


def _policy_text(configuration: Configuration) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        if configuration.authorization is not None:
            return read_file(configuration.authorization.policies).decode()
    return None


def _lines(files: list[Path]) -> Iterator[bytes]:
    for path in files:
        try:
            with open_file(path, pipe=True) as file:
                yield from file
        except OSError as error:
            raise Invalid(f"{path} cannot be read: {error.strerror}", hint="Name an event log.") from None
