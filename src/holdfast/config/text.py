"""Reads a file that an operator writes."""

import errno
from pathlib import Path

from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.safe_path import distrust

MAX_FILE = 1_048_576
"""Bytes. A longer file is a mistake."""


def read_text(path: Path, *, language: str) -> str:
    """The text of a file that is in `language`, which demands UTF-8, and that no other user can change.

    Raises ConfigurationError.
    """
    if why := distrust(path):
        raise ConfigurationError(str(path), (Problem(None, f"is not used: {why}"),))
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        whom = "; run this as the user that the proxy runs as, or as root" if error.errno == errno.EACCES else ""
        raise ConfigurationError(str(path), (Problem(None, f"cannot be read: {error.strerror}{whom}"),)) from None
    if len(raw) > MAX_FILE:
        raise ConfigurationError(str(path), (Problem(None, f"has more than {MAX_FILE} bytes"),))
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(str(path), (Problem(line, f"is not UTF-8, as {language} must be"),)) from None
