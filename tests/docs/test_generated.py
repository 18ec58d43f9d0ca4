"""The generated reference pages are made, and name all that exists."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.conformance.requirements import requirements
from tests.docs.pages import ROOT, text_of
from tools.docs import GENERATED
from tools.docs.__main__ import write

from holdfast.cli.exit_codes import MEANINGS
from holdfast.cli.main import app, load
from holdfast.config.tables import TABLES
from holdfast.witness.check.checks import CATALOGUE
from holdfast.witness.kms_errors import KMS_ERRORS, ConnectionErrorCode

_REFERENCE = ROOT / "docs/reference"


def test_the_generator_writes_every_page(tmp_path: Path) -> None:
    write(tmp_path / "new folder")
    written = {path.name: path.read_text() for path in (tmp_path / "new folder").iterdir()}
    assert written.keys() == GENERATED.keys()
    assert all(text.startswith("# ") and text.endswith("\n") for text in written.values())


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_not_in_git(name: str) -> None:
    """Else each changed help text would be a change of two files."""
    assert f"/docs/reference/{name}" in (ROOT / ".gitignore").read_text().splitlines()


def test_every_command_has_a_heading_with_its_help() -> None:
    root: Any = typer.main.get_command(app)
    page = text_of(_REFERENCE / "cli.md")
    paths = list(_paths(root, typer.Context(root, info_name="holdfast")))
    assert len(paths) > 20
    for path in paths:
        assert f"# `{path}`\n\n```text\nUsage: {path} " in page, path


def _paths(command: Any, context: Any) -> Iterator[str]:
    yield context.command_path
    for name in command.list_commands(context) if hasattr(command, "commands") else ():
        child = load(name) if context.parent is None else command.commands[name]
        yield from _paths(child, typer.Context(child, info_name=name, parent=context))


def test_every_exit_code_has_a_row() -> None:
    page = text_of(_REFERENCE / "cli.md")
    assert all(f"| {code.value} | {meaning} |\n" in page for code, meaning in MEANINGS.items())


def test_every_configuration_key_has_a_row_in_the_section_of_its_table() -> None:
    page = text_of(_REFERENCE / "configuration.md")
    sections = {head: body for head, _, body in (part.partition("\n") for part in page.split("\n## ")[1:])}
    assert list(sections) == [f"`[{table.name}]`" for table in TABLES]
    for table in TABLES:
        for key in table.keys:
            assert f"\n| `{key.name}` | " in sections[f"`[{table.name}]`"], f"{table.name}.{key.name}"


def test_every_check_has_a_heading() -> None:
    page = text_of(_REFERENCE / "conformance-checks.md")
    assert all(f"\n### {check.id}: " in page for check in CATALOGUE)


def test_every_message_and_code_of_kms_is_on_the_page_of_its_errors() -> None:
    page = text_of(_REFERENCE / "kms-errors.md")
    assert all(error.message in page for error in KMS_ERRORS.values())
    assert all(f"\n### `{code}`\n" in page for code in ConnectionErrorCode)


def test_every_requirement_of_the_specification_has_a_row() -> None:
    page = text_of(_REFERENCE / "conformance.md")
    assert all(f"\n| {each.number} | " in page for each in requirements())
