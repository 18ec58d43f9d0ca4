"""Files and directories that hold secrets: not readable by others, never half-written, replaced only on request."""

import os
import secrets
from pathlib import Path

from holdfast import durable
from holdfast.control.errors import Conflict

SECRET_MODE = 0o600
"""Of a file that holds a secret: only its owner reads and writes it."""
DIRECTORY_MODE = 0o700
"""Of a directory that holds secrets."""
PUBLIC_MODE = 0o644
"""Of a certificate or a configuration, which hold no secret."""


def private_directory(path: Path) -> Path:
    """`path`, made with mode 0700 where it does not exist. An existing one keeps its mode, which doctor judges.

    Raises Conflict for what is not a directory.
    """
    try:
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise Conflict(
            f"{error.filename} is not a directory", hint="Name another one, or move that file away first."
        ) from None
    return path


def create_file(path: Path, content: bytes, *, mode: int = SECRET_MODE) -> None:
    """Writes a new file whole or not at all. Raises Conflict if `path` exists."""
    # A link, unlike a rename, fails where the name is taken: no file that appears meanwhile is overwritten.
    temporary = _written(path, content, mode)
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise Conflict(
            f"{path} exists already, and Holdfast does not write over a file",
            hint="Name another file, or move that one away first.",
        ) from None
    finally:
        temporary.unlink()
    durable.sync_directory(path.parent)


def replace_file(path: Path, content: bytes, *, mode: int = SECRET_MODE) -> None:
    """Writes a file, or replaces it at once: a reader sees the old content or the new, never a part."""
    _written(path, content, mode).replace(path)
    durable.sync_directory(path.parent)


def _written(path: Path, content: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    durable.create(temporary, content, mode=mode)
    return temporary
