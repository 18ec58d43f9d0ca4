"""Files and directories that are still there, whole, after a power loss; and whose they are."""

import os
from contextlib import suppress
from pathlib import Path


def create(path: Path, content: bytes, *, mode: int = 0o600, like: Path | None = None) -> None:
    """Write a new file to the disk. Its name is durable after `sync_directory`. Raises OSError, and leaves no file.

    `mode` holds whatever the umask is. `like`: made by root, the file belongs to this directory's owner.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if like is not None:
                give_to_owner_of(like, file.fileno())
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def replace(path: Path, content: bytes, *, mode: int = 0o600, like: Path | None = None) -> None:
    """Write a file, or replace it at once: a reader sees the old content or the new. Raises OSError.

    For one writer at a time. As for `create`, its name is durable after `sync_directory`.
    """
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)  # what a crash has left
    create(beside, content, mode=mode, like=like)
    beside.replace(path)


def sync_directory(path: Path) -> None:
    """Let the names in a directory survive a power loss. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_to_owner_of(directory: Path, descriptor: int) -> None:
    """Give the open file, just made in `directory` by this process, to the directory's owner. Raises OSError.

    Root makes files for the service, which could not read them otherwise. Does nothing where this is not root, or
    root owns the directory.
    """
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def make_directory(path: Path, *, mode: int = 0o700) -> None:
    """Make a directory, by default one that its owner alone can enter, and its parents; existing ones are left alone.

    Raises OSError. Each belongs to the owner of the directory above it, and survives a power loss.
    """
    if path.is_dir():
        return
    make_directory(path.parent, mode=mode)
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        give_to_owner_of(path.parent, descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)
