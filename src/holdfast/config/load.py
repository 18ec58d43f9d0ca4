"""Reads the configuration file, and reports everything that is wrong with it at once."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from holdfast.config import lines
from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.hsm import HsmTable
from holdfast.config.kinds import nearest
from holdfast.config.listeners import Tls
from holdfast.config.model import Configuration
from holdfast.config.outlets import Outlet
from holdfast.config.policies import parse_policies, read_policies
from holdfast.config.rules import conflicts
from holdfast.config.safe_path import distrust_library
from holdfast.config.tables import TABLES, Table, keys_of
from holdfast.config.text import read_text
from holdfast.hsm.settings import HsmSettings
from holdfast.reading import MOST_PEM, read_file

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SYNTAX = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>[0-9]+), column (?P<column>[0-9]+)|end of document)\)")


def load(path: Path) -> Configuration:
    """The configuration in `path`. Raises ConfigurationError.

    Its TLS files can be read, its policies are valid, and no other user can change it or the libraries it names.
    """
    text = read_text(path, language="TOML")
    reader = _Reader(text, path)
    configuration = reader.configuration()
    reader.check_files(configuration)
    if configuration.authorization is None:
        return configuration
    authorization = read_policies(configuration.authorization.policies)
    parse_policies(authorization)
    return replace(configuration, authorization=authorization)


def parse(text: str, path: Path) -> Configuration:
    """The configuration in `text`, as if it were the file `path`; no file is touched. Raises ConfigurationError."""
    return _Reader(text, path).configuration()


class _Reader:
    """One reading of one file. Problems are collected; the model is built only if there are none."""

    def __init__(self, text: str, path: Path) -> None:
        self._path = path
        self._folder = path.absolute().parent
        self._text = text
        self._problems: list[Problem] = []
        self._refused: set[lines.Path] = set()
        try:
            self._document = tomllib.loads(text)
        except RecursionError:
            raise ConfigurationError(str(path), (Problem(None, "is nested too deeply"),)) from None
        except ValueError as error:  # TOMLDecodeError, or a number too long for Python
            raise ConfigurationError(str(path), (_syntax_problem(text, error),)) from None

    def configuration(self) -> Configuration:
        """The whole file as values. Raises ConfigurationError."""
        self._refuse_unknown_tables()
        tables = {table.field: self._table(table) for table in TABLES if not table.is_named}
        hsms, outlets = self._hsms(), self._outlets()
        for places, text in conflicts(self._document):
            if not self._refused.intersection(places):
                self._problem(next((place for place in places if place in self._lines), places[0]), text)
        self._raise_problems()
        return Configuration(path=self._path.absolute(), hsms=hsms, outlets=outlets, **tables)

    def check_files(self, configuration: Configuration) -> None:
        """Raises ConfigurationError for TLS files that cannot be opened and libraries that others can change."""
        for listener in ("tls", "health_tls", "metrics_tls"):
            self._check_tls_files(listener, getattr(configuration, listener))
        for name, outlet in configuration.outlets.items():
            for key, file in outlet.files.items():
                self._check_file(("outlet", name, key), file)
            if outlet.to.is_otlp and not _has_otlp():
                text = f"`to` in [outlet.{name}] needs OpenTelemetry's exporter: pip install 'holdfast[otlp]'"
                self._problem(("outlet", name, "to"), text)
        for name, table in configuration.hsms.items():
            if why := distrust_library(table.settings.library):
                self._problem(("hsm", name, "library"), f"`library` in [hsm.{name}] {why}")
        self._raise_problems()

    def _check_tls_files(self, table: str, tls: Tls | None) -> None:
        for name in ("certificate", "private_key", "client_ca"):
            file: Path | None = getattr(tls, name, None)
            if file is not None:
                self._check_file((table, name), file)

    def _check_file(self, path: lines.Path, file: Path) -> None:
        try:
            read_file(file, most=MOST_PEM)
        except OSError as error:
            table = ".".join(path[:-1])
            self._problem(path, f"`{path[-1]}` in [{table}]: {file} cannot be read: {error.strerror}")

    def _refuse_unknown_tables(self) -> None:
        known = [table.name.partition(".")[0] for table in TABLES]
        for name, value in self._document.items():
            if name not in known:
                what = (
                    f"unknown table [{name}]" if isinstance(value, dict) else f"unknown key `{name}` before any table"
                )
                self._problem((name,), what + nearest(name, known, "[{}]"))

    def _table(self, table: Table) -> Any:
        """The settings of a table other than [hsm.NAME]; None where it is missing or wrong."""
        if table.name not in self._document:
            if table.is_optional:
                return None
            if any(key.is_required for key in table.keys):
                self._problem((table.name,), f"no table [{table.name}]")
                return None
        values = self._values(table.settings, (table.name,), self._document.get(table.name, {}))
        return None if values is None else table.settings(**values)

    def _hsms(self) -> dict[str, HsmTable]:
        contents = self._document.get("hsm", {})
        if not isinstance(contents, dict) or not contents:
            self._problem(("hsm",), "no HSM: add a table [hsm.NAME]")
            return {}
        hsms = {}
        for name, values in self._named(
            "hsm", HsmSettings, what="an HSM", example="each HSM has a table with a name"
        ):
            pin = values.pop("pin")
            hsms[name] = HsmTable(HsmSettings(name=name, **values), pin)
        return hsms

    def _outlets(self) -> dict[str, Outlet]:
        if not isinstance(self._document.get("outlet", {}), dict):
            self._problem(("outlet",), "[outlet] must be tables with names, as in [outlet.siem]")
            return {}
        named = self._named("outlet", Outlet, what="an outlet", example="each outlet has a table with a name")
        return {name: Outlet(**values) for name, values in named}

    def _named(self, table: str, settings: type, *, what: str, example: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The name and the values of each table [`table`.NAME] in which nothing is wrong."""
        for name, content in self._document.get(table, {}).items():
            path = (table, name)
            if not isinstance(content, dict):
                self._problem(path, f"`{name}` in [{table}]: {example} of its own, as in [{table}.main]")
                continue
            if not _NAME.fullmatch(name):
                self._problem(path, f"`{name}` cannot be the name of {what}: use 1 to 64 of A-Z a-z 0-9 _ -")
            values = self._values(settings, path, content)
            if values is not None:
                yield name, values

    def _values(self, settings: type, path: lines.Path, content: Any) -> dict[str, Any] | None:
        """Every key of one table with its value or default; None where one was refused."""
        from holdfast.config.validation import validate  # noqa: PLC0415 (pydantic: 60 ms, and no command's help needs it)

        title = f"[{'.'.join(path)}]"
        if not isinstance(content, dict):
            self._problem(path, f"{title} must be a table")
            return None
        names = [key.name for key in keys_of(settings)]
        for name in content:
            if name not in names:
                near = nearest(name, names, "`{}`")
                self._problem((*path, name), f"unknown key `{name}` in {title}{near}")
        known = {name: value for name, value in content.items() if name in names}
        values, mistakes = validate(settings, known, self._folder)
        for name, text in mistakes.items():
            self._problem((*path, name), f"`{name}` in {title} {text}")
        return None if mistakes else values

    @cached_property
    def _lines(self) -> dict[lines.Path, int]:
        return lines.lines_of(self._text)

    def _problem(self, path: lines.Path, text: str) -> None:
        self._refused.add(path)
        line = next((self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines), None)
        self._problems.append(Problem(line, _printable(text)))

    def _raise_problems(self) -> None:
        if self._problems:
            ordered = sorted(self._problems, key=lambda problem: problem.line or 0)
            raise ConfigurationError(str(self._path), tuple(ordered))


def _has_otlp() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ImportError:  # not even the packages above it
        return False


def _printable(text: str) -> str:
    """Fit for a terminal: names and values of the file may hold control characters."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _syntax_problem(text: str, error: ValueError) -> Problem:
    match = _SYNTAX.fullmatch(str(error))
    if match is None:
        return Problem(None, f"is not TOML: {error}")
    if match["line"] is None:
        return Problem(text.rstrip().count("\n") + 1, f"is not TOML: {match['what']}, at the end of the file")
    return Problem(int(match["line"]), f"is not TOML: {match['what']}, at column {match['column']}")
