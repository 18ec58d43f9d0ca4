"""Whether other users can change a file that decides which code runs and which keys are served.

The rule is that of OpenSSH (sshd_config(5), StrictModes): the file, every directory above it and every symbolic link
on the way belong to root or to the caller, and no other user can write there. Modes do not matter where the file
system is mounted read-only.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

_MOST_LINKS = 40  # As Linux follows them.


def distrust(path: Path) -> str:
    """Why `path` must not be relied on, and what to do: a sentence or two; empty where it can be.

    A file that is missing or cannot be reached is not judged: opening it will fail.
    """
    trusted = _trusted_users()
    try:
        for place in _places(path):
            found = place.lstat()
            if found.st_uid not in trusted:
                return (
                    f"{place} belongs to {_user(found.st_uid)}, who could change it."
                    f" Run this as that user, or `chown root {place}`"
                )
            if _others_write(found, trusted) and not os.statvfs(place).f_flag & os.ST_RDONLY:
                # Kubernetes makes the directories of its volumes 0777, and mounts them read-only.
                return (
                    f"{place} can be changed by other users (mode {stat.S_IMODE(found.st_mode):04o}):"
                    f" `chmod go-w {place}`"
                )
    except OSError:
        return ""
    return ""


def distrust_library(library: str) -> str:
    """The same of a PKCS#11 library. A bare name is found by the dynamic linker, where only root can write."""
    why = distrust(Path(library)) if Path(library).is_absolute() else ""
    return f"{library} is not loaded: {why}" if why else ""


def _trusted_users() -> set[int]:
    # The owner of this program's code can do anything that the program can, as where root runs a user's checkout.
    return {0, os.geteuid(), Path(__file__).stat().st_uid}


def _others_write(found: os.stat_result, trusted: set[int]) -> bool:
    mode = found.st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return False  # A link's own mode means nothing; a device is the kernel's.
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return False  # As in /tmp: entries can be replaced by their owner alone, who is looked at as well.
    return bool(mode & stat.S_IWOTH) or bool(mode & stat.S_IWGRP and not is_private_group(found.st_gid, trusted))


def is_private_group(gid: int, users: set[int]) -> bool:
    """Whether only these users are in the group, as with Debian's and Fedora's user private groups."""
    try:
        group = grp.getgrgid(gid)
        members = {pwd.getpwnam(name).pw_uid for name in group.gr_mem}
    except KeyError:
        return False
    members |= {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid}
    return bool(members) and members <= users


def _places(path: Path) -> Iterator[Path]:
    """Everything that decides what `path` leads to: each directory, each link and its way, at last the file."""
    place = Path("/")
    yield place
    ahead = list(reversed(path.absolute().parts[1:]))
    links = 0
    while ahead:
        part = ahead.pop()
        if part == "..":
            place = place.parent
            continue
        step = place / part
        yield step
        if not step.is_symlink():
            place = step
            continue
        links += 1
        if links > _MOST_LINKS:
            return  # Opening it fails.
        target = step.readlink()
        if target.is_absolute():
            place = Path("/")
        ahead.extend(reversed([part for part in target.parts if part != "/"]))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"
