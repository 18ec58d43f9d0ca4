"""`[hsm.NAME]`: the kinds of values that only an HSM has, and the table."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.kinds import Kind, Refused, only_entry, parse_text, shown
from holdfast.config.safe_path import distrust_library
from holdfast.hsm.settings import HsmSettings, TokenSelector
from holdfast.secrets.errors import ReferenceRefused, SecretMissing
from holdfast.secrets.reference import SecretReference, Source

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PIN = 'write pin = { file = "/etc/holdfast/pin" }, { env = "NAME" } or { credential = "NAME" } (systemd)'


def _library(value: Any, folder: Path) -> str:
    """What dlopen is given: a path, or a bare name that the dynamic linker finds."""
    text = parse_text(value, folder)
    return str(folder / text) if "/" in text else text


def _environment(value: Any, folder: Path) -> dict[str, str]:
    del folder
    if not isinstance(value, dict):
        raise Refused(f'must be a table as in {{ CKNFAST_LOADSHARING = "1" }}, not {shown(value)}')
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise Refused(f"has {name!r}, which cannot be the name of an environment variable")
        if not isinstance(text, str) or "\x00" in text:
            raise Refused(f'gives {name} a value that is not a string: quote it, as in {name} = "1"')
    return dict(value)


def _token(value: Any, folder: Path) -> TokenSelector:
    name, chosen = only_entry(value, ("label", "serial", "slot"), 'token = { label = "holdfast" }')
    if name == "label":
        return TokenSelector(label=parse_text(chosen, folder))
    if name == "serial":
        return TokenSelector(serial=parse_text(chosen, folder))
    if type(chosen) is not int or not 0 <= chosen < 2**64:
        raise Refused(f"has a slot that is not a slot id: it must be an integer from 0, not {shown(chosen)}")
    return TokenSelector(slot=chosen)


def _reference(value: Any, folder: Path) -> SecretReference:
    """Nothing is read. The value never appears in a message: it may be the PIN itself, by mistake."""
    if not isinstance(value, dict):
        raise Refused(f"must say where the PIN is kept, and must not be the PIN: {_PIN}")
    name, chosen = only_entry(value, tuple(Source), _PIN)
    if not isinstance(chosen, str) or not chosen:
        raise Refused(f"must name its {name} in a string: {_PIN}")
    try:
        return SecretReference.parse(f"{name}:{folder / chosen if name == Source.FILE else chosen}")
    except ReferenceRefused:
        raise Refused(f"has a {name} whose name is malformed: {_PIN}") from None


LIBRARY = Kind("path, or a library's name", _library)
ENVIRONMENT = Kind("table of strings", _environment)
TOKEN = Kind("{ label = ... } or { serial = ... } or { slot = ... }", _token)
REFERENCE = Kind("{ file = ... } or { env = ... } or { credential = ... }", _reference)


@dataclass(frozen=True, slots=True)
class HsmTable:
    """One `[hsm.NAME]` table. `settings.pin` is None: `resolve` reads it, in the process that logs in."""

    settings: HsmSettings
    pin: SecretReference | None = None


def resolve(table: HsmTable) -> HsmSettings:
    """The HSM's settings with its PIN read, for a process that will load its library.

    Raises ConfigurationError, also for a library that others can change. Its text never holds the PIN.
    """
    name = f"[hsm.{table.settings.name}]"
    if why := distrust_library(table.settings.library):
        raise ConfigurationError(name, (Problem(None, f"the library {why}"),))
    if table.pin is None:
        return table.settings
    try:
        return replace(table.settings, pin=table.pin.read())
    except SecretMissing as error:
        raise ConfigurationError(name, (Problem(None, f"the PIN: {error}"),)) from None
