"""docs/reference/cli.md, from the program's own help."""

from collections.abc import Iterator
from typing import Any

import typer

from holdfast.cli.exit_codes import MEANINGS
from holdfast.cli.main import app, load
from tools.docs.shapes import SHAPES

_WIDTH = 100
_HEAD = """\
# The command line

Data goes to standard output, messages to standard error: `holdfast: error: ...`, then `hint: ...` with what to do
next. With `--json` the data is one JSON document. Secrets are never taken from the command line, and printed only
where a command says so. Commands on keystores and credentials, and those on keys that change only the catalog, need
neither HSM nor PIN nor TLS files, so that you can block when nothing else works.

A change to something that exists (`block`, `unblock`, `disable`, `enable`, `retire`, `migrate`) shows its plan and
asks. With `--yes` it does not ask; without a terminal and without `--yes` nothing is changed.

"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join((*_exit_codes(), *_shapes(), *_commands())).rstrip() + "\n"


def _exit_codes() -> Iterator[str]:
    yield "## Exit codes\n\n| Code | Meaning |\n|---|---|\n"
    for code, meaning in MEANINGS.items():
        yield f"| {code.value} | {meaning} |\n"
    yield "\n"


def _shapes() -> Iterator[str]:
    yield "## JSON\n\nTimes are RFC 3339 in UTC; what does not apply is `null`.\n\n"
    yield "| Command | Document |\n|---|---|\n"
    for command, (form, fields) in SHAPES.items():
        yield f"| `{command}` | {form} of {', '.join(f'`{field}`' for field in fields)} |\n"
    yield "\n"


def _commands() -> Iterator[str]:
    root: Any = typer.main.get_command(app)
    context = root.make_context("holdfast", [], resilient_parsing=True, terminal_width=_WIDTH)
    yield _section("holdfast", root, context, level=2)
    for name in root.list_commands(context):
        yield from _command(load(name), name, context, level=2)


def _command(command: Any, name: str, parent: Any, *, level: int) -> Iterator[str]:
    context = typer.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH)
    yield _section(context.command_path, command, context, level=level)
    for child, found in getattr(command, "commands", {}).items():
        yield from _command(found, child, context, level=level + 1)


def _section(title: str, command: Any, context: Any, *, level: int) -> str:
    return f"{'#' * level} `{title}`\n\n```text\n{command.get_help(context).rstrip()}\n```\n\n"
