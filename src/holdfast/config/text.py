"""Reads a file that an operator writes."""

from pathlib import Path

from holdfast.config.errors import ConfigurationError, Problem

MAX_FILE = 1_048_576
"""Bytes. A longer file is none that somebody wrote."""


def read_text(path: Path, *, language: str) -> str:
    """The text of a file that is in `language`, which demands UTF-8. Raises ConfigurationError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigurationError(str(path), (Problem(None, f"cannot be read: {error.strerror}"),)) from None
    if len(raw) > MAX_FILE:
        raise ConfigurationError(str(path), (Problem(None, f"has more than {MAX_FILE} bytes"),))
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(str(path), (Problem(line, f"is not UTF-8, as {language} must be"),)) from None
