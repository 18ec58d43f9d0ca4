"""Every table and key of the file, read off the settings' classes: their fields, types, defaults and docstrings.

A field is a key of the same name, unless its metadata says `toml: False`. So a new key is one new field.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from enum import StrEnum
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from holdfast.config.hsm import ENVIRONMENT, LIBRARY, REFERENCE, TOKEN
from holdfast.config.kinds import PATH, TEXT, Kind, choice, literal
from holdfast.config.model import Configuration
from holdfast.config.outlets import Outlet
from holdfast.hsm.pkcs11.profile import PROFILES
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.xks.secret import Secret

_KINDS = {str: TEXT, Path: PATH, TokenSelector: TOKEN, Secret: REFERENCE, dict[str, str]: ENVIRONMENT}
_KINDS_OF_KEYS = {"profile": choice(tuple(PROFILES)), "library": LIBRARY}


@dataclass(frozen=True, slots=True)
class Key:
    """A key. `type` is its kind, or what pydantic knows; `default` as it would be written."""

    table: type
    name: str
    type: Any
    default: Any

    @property
    def meaning(self) -> str:
        """One or two sentences."""
        return _docstrings(self.table)[self.name]

    @property
    def is_required(self) -> bool:
        """Whether it has no default."""
        return self.default is MISSING

    @property
    def range(self) -> tuple[Any, Any] | None:
        """The least and the greatest value of a number."""
        metadata = getattr(self.type, "__metadata__", ())
        return (metadata[0].ge, metadata[0].le) if metadata else None

    @property
    def words(self) -> str:
        """What it may be, as in "integer, 1 to 64"."""
        if isinstance(self.type, Kind):
            return self.type.words
        if self.range is not None:
            low, high = self.range
            return f"{'integer' if self.type.__origin__ is int else 'seconds'}, {low} to {high}"
        return "true or false" if self.type is bool else " or ".join(map(literal, get_args(self.type)))


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the file. `[hsm.NAME]` stands for as many as there are HSMs. `field` is the Configuration's."""

    name: str
    field: str
    settings: type
    is_optional: bool

    @property
    def is_named(self) -> bool:
        """Whether there are as many as there are names."""
        return self.name.endswith(".NAME")

    @property
    def meaning(self) -> str:
        """One or two sentences."""
        return _docstrings(Configuration)[self.field]

    @property
    def keys(self) -> tuple[Key, ...]:
        """In the order of the documentation."""
        return keys_of(self.settings)


@cache
def keys_of(settings: type) -> tuple[Key, ...]:
    """The keys of one class of settings."""
    hints = get_type_hints(settings, include_extras=True)
    return tuple(
        Key(settings, each.name, _kind(each.name, hints[each.name]), _default(each))
        for each in fields(settings)
        if each.metadata.get("toml", True)
    )


def _kind(name: str, hint: Any) -> Any:
    if name in _KINDS_OF_KEYS:
        return _KINDS_OF_KEYS[name]
    if get_origin(hint) in {Union, UnionType}:
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return choice(hint)
    kind = getattr(hint, "__metadata__", (None,))[0]
    return kind if isinstance(kind, Kind) else _KINDS.get(hint, hint)


def _default(each: Field[Any]) -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()


@cache
def _docstrings(settings: type) -> dict[str, str]:
    """By field, the string below it."""
    definition: Any = ast.parse(inspect.getsource(settings)).body[0]
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _tables() -> Iterator[Table]:
    for name, hint in get_type_hints(Configuration).items():
        settings, *others = get_args(hint) or (hint,)
        if name == "hsms":
            yield Table("hsm.NAME", name, HsmSettings, is_optional=False)
        elif name == "outlets":
            yield Table("outlet.NAME", name, Outlet, is_optional=True)
        elif name != "path":
            yield Table(name, name, settings, is_optional=bool(others))


TABLES = tuple(_tables())
"""In the order of the documentation."""
