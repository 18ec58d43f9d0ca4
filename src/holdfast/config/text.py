"""Reads a file that an operator writes."""

import errno
from pathlib import Path

from holdfast.config.errors import ConfigurationError, Problem
from holdfast.config.safe_path import distrust
from holdfast.reading import read_file

MAX_FILE = 1_048_576
"""Bytes. A longer file is a mistake."""


def read_text(path: Path, *, language: str, pipe: bool = False) -> str:
    """The text of a file that is in `language`, which demands UTF-8, and that no other user can change.

    `pipe` as in `read_file`, and then an empty one is refused. Raises ConfigurationError.
    """
    if why := distrust(path):
        raise ConfigurationError(str(path), (Problem(None, f"is not used: {why}"),))
    try:
        raw = read_file(path, most=MAX_FILE, pipe=pipe)
    except OSError as error:
        whom = "; run this as the user that the proxy runs as, or as root" if error.errno == errno.EACCES else ""
        raise ConfigurationError(str(path), (Problem(None, f"cannot be read: {error.strerror}{whom}"),)) from None
    if pipe and not raw.strip():
        # As what a command left that failed in `<(command)`; and empty rules would be none.
        raise ConfigurationError(str(path), (Problem(None, "is empty"),))
    try:
        return raw.decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(str(path), (Problem(line, f"is not UTF-8, as {language} must be"),)) from None
