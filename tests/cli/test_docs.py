"""`holdfast docs`, and what messages say about pages: an installed wheel has no checkout to look in."""

import ast
import re
from pathlib import Path

import pytest
from tests.cli.conftest import Run

import holdfast
from holdfast.cli import docs
from holdfast.cli.exit_codes import ExitCode

PACKAGE = Path(holdfast.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))


def messages(source: Path) -> set[str]:
    """Every string of a module that is not a docstring."""
    tree = ast.parse(source.read_text())
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone)
    return {node.value for node in constants if isinstance(node.value, str)}


def test_no_message_names_a_file_of_the_checkout() -> None:
    named = {
        f"{source.relative_to(PACKAGE)}: {text}"
        for source in SOURCES
        for text in messages(source)
        if re.search(r"\bdocs/\w|\.md\b", text) and source.name != "docs.py"
    }
    assert named == set()


def test_every_page_that_a_message_names_exists(run: Run) -> None:
    named = {
        page
        for source in SOURCES
        for text in messages(source)
        for page in re.findall("`holdfast docs ([a-z0-9-]+)`", text)
    }
    assert named
    for page in named:
        assert run("docs", page).ok().out.startswith("# ")


def test_pages_are_listed_with_their_titles(run: Run) -> None:
    lines = run("docs").ok().out.splitlines()
    assert any(line.split(maxsplit=1) == ["production", "Run Holdfast in production"] for line in lines)


def test_a_page_that_is_not_there(run: Run) -> None:
    done = run("docs", "producton")
    assert (done.code, "Did you mean production?" in done.err) == (ExitCode.NOT_FOUND, True)


def test_without_pages_it_says_where_they_are(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(docs, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(docs, "_INSTALLED", tmp_path)
    assert run("docs").code == ExitCode.PREREQUISITE


def test_pages_of_an_installed_wheel_are_found(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """scripts/test-wheel.sh runs the same on a real wheel."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "tutorial.md").write_text("# Of the wheel\n")
    monkeypatch.setattr(docs, "_CHECKOUT", tmp_path / "none")
    monkeypatch.setattr(docs, "_INSTALLED", tmp_path)
    assert run("docs", "tutorial").ok().out == "# Of the wheel\n"
