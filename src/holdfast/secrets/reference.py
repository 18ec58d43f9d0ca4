"""Where a secret lies: a file, an environment variable or a systemd credential. Never the secret itself."""

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Self

from holdfast.reading import read_file
from holdfast.secrets.errors import ReferenceRefused, SecretMissing
from holdfast.xks.secret import Secret

MAX_SECRET = 65_536
"""Bytes. A longer file is a mistake, for example a log or a device."""


class Source(StrEnum):
    """The three places."""

    FILE = "file"
    ENVIRONMENT = "env"
    CREDENTIAL = "credential"


@dataclass(frozen=True, slots=True)
class SecretReference:
    """A secret's place. It may be printed, pickled and stored, which a Secret may not."""

    source: Source
    name: str
    _NAME: ClassVar[re.Pattern[str]] = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `file:PATH`, `env:NAME` or `credential:NAME`. Raises ReferenceRefused."""
        source, colon, name = text.partition(":")
        if not colon or source not in set(Source) or not name or "\x00" in name:
            raise ReferenceRefused("a secret's reference is file:PATH, env:NAME or credential:NAME")
        reference = cls(Source(source), name)
        if reference.source is not Source.FILE and not cls._NAME.fullmatch(name):
            raise ReferenceRefused(
                f"{text!r} is not a reference: a name has letters, digits, and _ . @ - after the first"
            )
        return reference

    def __str__(self) -> str:
        return f"{self.source}:{self.name}"

    def read(self) -> Secret:
        """The secret, without one trailing newline. Raises SecretMissing."""
        match self.source:
            case Source.FILE:
                return _read_file(Path(self.name))
            case Source.ENVIRONMENT:
                return self._read_environment()
            case Source.CREDENTIAL:
                return self._read_credential()

    def _read_environment(self) -> Secret:
        value = os.environb.get(self.name.encode())
        if value is None:
            raise SecretMissing(f"the environment variable {self.name} is not set")
        return _not_empty(value, f"the environment variable {self.name}")

    def _read_credential(self) -> Secret:
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise SecretMissing(
                f"the credential {self.name} is systemd's to pass, and $CREDENTIALS_DIRECTORY is not set:"
                f" run under the unit that has LoadCredential={self.name}:..., or refer to a file"
            )
        return _read_file(Path(directory, self.name))


def _read_file(path: Path) -> Secret:
    try:
        value = read_file(path, most=MAX_SECRET)
    except OSError as error:
        raise SecretMissing(f"{path} cannot be read: {error.strerror}") from None
    return _not_empty(value, str(path))


def _not_empty(value: bytes, where: str) -> Secret:
    # Editors and `echo` end a file with a newline that belongs to no PIN or key.
    stripped = value.removesuffix(b"\n").removesuffix(b"\r")
    if not stripped:
        raise SecretMissing(f"{where} is empty")
    return Secret(stripped)
