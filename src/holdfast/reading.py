"""Reads a file that a person named: never waits for one that is no file, and never takes more than is asked for."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST = 1 << 30
"""Bytes that are read of one file at most, where nothing else is said."""
MOST_PEM = 1 << 24
"""Bytes of a file that OpenSSL is to read: it would wait for a FIFO, and read a device without end."""


def open_file(path: Path | str, *, pipe: bool = False) -> BinaryIO:
    """The file, open for reading. Raises OSError, whose `strerror` is for people, for what is not a file.

    A FIFO would be waited for without end, a device read without end. With `pipe`, a pipe that has a writer may be
    read all the same, as `<(command)` makes it in a shell.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or (pipe and stat.S_ISFIFO(mode)):
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "It is a pipe or a device, and not a file", str(path))


def read_file(path: Path | str, *, most: int = MOST, pipe: bool = False) -> bytes:
    """The content of a file. Raises OSError as `open_file` does, and for more than `most` bytes."""
    with open_file(path, pipe=pipe) as file:
        if os.fstat(file.fileno()).st_size > most or len(content := file.read(most + 1)) > most:
            raise OSError(errno.EFBIG, f"It has more than {most} bytes", str(path))
        return content
