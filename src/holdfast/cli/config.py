"""`holdfast config`: the configuration file, checked without an HSM, and each of its keys explained."""

import difflib
import shutil
import textwrap
from collections.abc import Iterator
from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.findings import report_findings
from holdfast.cli.options import ConfigOption, JsonOption, configuration_path, read_configuration
from holdfast.config.errors import ConfigurationError
from holdfast.config.kinds import literal
from holdfast.config.tables import TABLES, Key, Table
from holdfast.control.errors import NotFound
from holdfast.doctor.references import examine_configuration
from holdfast.finding import Finding, error

app = typer.Typer(help="The configuration file: check it, explain its keys.", no_args_is_help=True)


@app.callback()
def config_() -> None:
    """The configuration file: check it, explain its keys."""


@app.command()
def check(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check the configuration and the files that it names, without an HSM, database or network.

    The exit code is 4 where the configuration itself is wrong; else it says the worst of what was found: 0 ok or
    notes, 10 warnings, 11 errors. `holdfast doctor` looks at the HSM, the keys and the running proxy as well.
    """
    path = configuration_path(config)
    try:
        configuration = read_configuration(path)
    except ConfigurationError as wrong:
        if not as_json:
            raise
        output.json({"worst": "error", "findings": list(_mistakes(wrong))})
        raise typer.Exit(ExitCode.CONFIGURATION) from None
    report_findings(examine_configuration(configuration, now=output.utc_now), as_json=as_json)


@app.command()
def explain(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]",
            help="A table, or a key, also as TABLE.KEY. Default: the tables.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Explain a table or a key of the configuration: its type, its default and its meaning."""
    if name is None:
        for table in TABLES:
            output.data(_paragraph(f"[{table.name}]", table.meaning))
        output.say("\n`holdfast config explain TABLE` lists the keys of a table.")
        return
    wanted = name.strip("[]")
    found = list(_found(wanted))
    if not found:
        known = [table.name for table in TABLES] + [key.name for table in TABLES for key in table.keys]
        near = difflib.get_close_matches(wanted.rpartition(".")[2], known, n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`holdfast config explain` lists the tables."
        raise NotFound(f"the configuration has no table or key {name!r}", hint=hint)
    output.data("\n\n".join(found))


def _found(wanted: str) -> Iterator[str]:
    for table in TABLES:
        if wanted in (table.name, table.name.partition(".")[0]):
            yield _paragraph(f"[{table.name}]", table.meaning)
            yield from (_key(key) for key in table.keys)
            return
    for table in TABLES:
        for key in table.keys:
            if wanted == key.name or (wanted.endswith(f".{key.name}") and _is_in(table, wanted)):
                yield f"[{table.name}]\n{_key(key)}"


def _is_in(table: Table, wanted: str) -> bool:
    return wanted.partition(".")[0] == table.name.partition(".")[0]


def _key(key: Key) -> str:
    default = "no default" if key.default is None else f"default: {literal(key.default)}"
    return _paragraph(f"{key.name}  ({key.words}; {'required' if key.is_required else default})", key.meaning)


def _paragraph(title: str, text: str) -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    return "\n".join((title, *textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")))


def _mistakes(wrong: ConfigurationError) -> Iterator[Finding]:
    for problem in wrong.problems:
        subject = wrong.file if problem.line is None else f"{wrong.file}:{problem.line}"
        yield error(
            "configuration-invalid",
            subject,
            problem.text,
            why="No command works with this file.",
            remedy="`holdfast config explain KEY` says what a key may be.",
        )
