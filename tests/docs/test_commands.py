"""Every command line that the documentation shows is one that the program takes."""

import re
from typing import Any

import pytest
import typer
from botocore import xform_name
from botocore.session import Session
from tests.docs.pages import ROOT, Command, commands

from holdfast.cli.main import app, load

_ROOT_OPTIONS = {"--help", "--version"}


@pytest.mark.parametrize("command", list(commands("holdfast")), ids=str)
def test_holdfast_lines_are_real(command: Command) -> None:
    """The command exists and has these options; a line of a code block is also complete as printed."""
    words = list(command.words)
    if not words or words[0] in _ROOT_OPTIONS:
        return
    root = typer.main.get_command(app)
    assert words[0] in root.list_commands(typer.Context(root)), f"there is no command {words[0]!r}"  # type: ignore[attr-defined]  # a group
    found: Any = load(words[0])
    path, rest = words[0], words[1:]
    while hasattr(found, "commands"):
        if not rest:
            assert not command.whole, f"`holdfast {path}` needs a subcommand"
            return
        if rest[0] not in found.commands and hasattr(found, "default"):
            rest = [found.default, *rest]
        assert rest[0] in found.commands, f"`holdfast {path}` has no {rest[0]!r}"
        found, path, rest = found.commands[rest[0]], f"{path} {rest[0]}", rest[1:]
    if command.whole and "--help" not in rest:
        found.make_context(f"holdfast {path}", rest).close()
        return
    options = {"--help"} | {
        name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)
    }
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert not given - options


@pytest.mark.parametrize("command", list(commands("aws")), ids=str)
def test_aws_lines_are_real(command: Command) -> None:
    """The service has the operation, and the operation has these parameters."""
    if not command.whole or len(command.words) < 2:
        return
    service, operation, *rest = command.words
    model = Session().get_service_model(service)
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    assert operation in operations
    shape = model.operation_model(operations[operation]).input_shape
    members = {xform_name(name, "-") for name in (shape.members if shape is not None else {})}
    given = {word.partition("=")[0].removeprefix("--") for word in rest if word.startswith("--")}
    given -= {"region", "output", "query", "profile", "endpoint-url"}
    assert not {name for name in given if name not in members and name.removeprefix("no-") not in members}


@pytest.mark.parametrize("command", list(commands("make")), ids=str)
def test_make_targets_exist(command: Command) -> None:
    """The Makefile has what the documentation calls."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(command.words) <= set(targets)


def test_lines_are_found() -> None:
    """An empty list would test nothing."""
    assert sum(command.whole for command in commands("holdfast")) > 20
    assert sum(command.whole for command in commands("aws")) > 5
