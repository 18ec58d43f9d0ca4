"""Files that root makes for the service: they belong to the service's user, or the service cannot read them."""

import os
from contextlib import suppress
from pathlib import Path


def give_to_owner_of(directory: Path, descriptor: int) -> None:
    """Give the open file, just made in `directory` by this process, to the directory's owner. Raises OSError.

    Does nothing where this is not root, or root owns the directory.
    """
    owner = directory.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def make_directory(path: Path) -> None:
    """Make a directory that its owner alone can enter, and its parents; an existing one is left alone.

    Raises OSError. Each belongs to the owner of the directory above it.
    """
    if path.is_dir():
        return
    make_directory(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        give_to_owner_of(path.parent, descriptor)
    finally:
        os.close(descriptor)
