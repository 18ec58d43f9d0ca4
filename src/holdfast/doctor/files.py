"""Doctor on files: who besides the service can read its secrets, and whether the service can use its directories."""

import errno
import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from sqlalchemy import make_url

from holdfast.config.model import Configuration
from holdfast.config.safe_path import is_private_group
from holdfast.finding import Finding, error, ok, warning
from holdfast.secrets.reference import Source

_LITTLE = 100 * 2**20
"""Bytes of free space below which doctor warns."""
_TRIAL = bytes(65_536)


def examine_files(configuration: Configuration) -> Iterator[Finding]:
    """Findings on every secret and every directory that the configuration names."""
    bad = [*exposed_secrets(configuration), *_directories(configuration)]
    yield from bad
    if not bad:
        yield ok("files", "files", "only the service can read the secrets, and its directories can be written")


def exposed_secrets(configuration: Configuration) -> Iterator[Finding]:
    """Findings on secrets that other users can read or change, or that the service itself cannot read."""
    service = _Service.of(configuration)
    for path, holds in _secrets(configuration):
        try:
            found = path.stat()
        except OSError:
            continue  # Missing or out of reach: other findings say so.
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        if service.exposes(found):
            yield error(
                "file-too-open",
                str(path),
                f"it holds {holds}, and has the mode {mode}",
                why="Other users of this host can read or change it.",
                remedy=f"{service.closing(path, found)}. If others had accounts here, replace what it holds.",
            )
        elif not service.reads(found):
            yield error(
                "file-not-readable",
                str(path),
                f"it holds {holds}, and the service's user {service.name} cannot read it (mode {mode})",
                why="The proxy works without it, or does not start.",
                remedy=f"chown {service.name}: {path}",
            )


def _secrets(configuration: Configuration) -> Iterator[tuple[Path, str]]:
    for table in configuration.hsms.values():
        if table.pin is not None and table.pin.source is Source.FILE:
            yield Path(table.pin.name), "the PIN"
    if configuration.audit is not None and configuration.audit.key_file is not None:
        yield configuration.audit.key_file, "the key that signs the audit log"
    if configuration.tls is not None:
        yield configuration.tls.private_key, "the TLS private key"
    secrets = configuration.catalog.secrets_directory
    yield secrets, "the secret access keys"
    try:
        files = sorted(secrets.iterdir())
    except OSError:
        files = []  # `_directories` says so.
    for path in files:
        yield path, "a secret access key"
    if catalog := _sqlite_file(configuration):
        yield catalog, "the catalog"


def _directories(configuration: Configuration) -> Iterator[Finding]:
    service = _Service.of(configuration)
    used = {configuration.catalog.secrets_directory: "the secret access keys"}
    if catalog := _sqlite_file(configuration):
        used[catalog.parent] = "the catalog"
    if configuration.log.events is not None:
        used[configuration.log.events.parent] = "the event log"
    for directory, holds in used.items():
        if directory == configuration.catalog.secrets_directory and _is_missing(directory):
            continue  # The first `credential issue` makes it.
        yield from _directory(directory, holds, service)


def _directory(directory: Path, holds: str, service: "_Service") -> Iterator[Finding]:
    as_whom = f"Run this as the service's user; if it is {service.name}: `chown {service.name}: {directory}`."
    try:
        found = directory.stat()
        list(directory.iterdir())
    except OSError as failure:
        yield error(
            "directory-unreadable",
            str(directory),
            f"the directory of {holds} cannot be read: {failure.strerror}",
            why="The proxy can use nothing in it.",
            remedy="Make the directory, and give it to the service's user."
            if failure.errno == errno.ENOENT
            else as_whom,
        )
        return
    try:
        with TemporaryFile(dir=directory) as file:
            file.write(_TRIAL)
            file.flush()
            os.fsync(file.fileno())
    except OSError as failure:
        full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
        yield error(
            "not-writable",
            str(directory),
            f"the directory of {holds} cannot be written: {failure.strerror}",
            why="No key or keystore can be stopped by `holdfast`, no count or event is written."
            if full
            else "What belongs there is not written.",
            remedy="Make room. To stop all keys meanwhile: `systemctl stop holdfast`." if full else as_whom,
        )
        return
    if not service.writes(found):
        yield error(
            "not-writable",
            str(directory),
            f"the service's user {service.name} cannot write to the directory of {holds}",
            why="What belongs there is not written.",
            remedy=f"chown {service.name}: {directory}",
        )
    space = os.statvfs(directory)
    free = space.f_bavail * space.f_frsize
    if free < _LITTLE:
        yield warning(
            "disk-nearly-full",
            str(directory),
            f"{free // 2**20} MB are free for {holds}",
            why="On a full disk no block takes effect, Encrypt stops, and events are lost.",
            remedy="Make room, or move the event log to another file system.",
        )


@dataclass(frozen=True, slots=True)
class _Service:
    """The user that the proxy runs as: the owner of its secrets or catalog; before there are any, the caller."""

    uid: int

    @classmethod
    def of(cls, configuration: Configuration) -> "_Service":
        for path in (configuration.catalog.secrets_directory, _sqlite_file(configuration)):
            if path is not None:
                with suppress(OSError):
                    return cls(path.stat().st_uid)
        return cls(os.geteuid())

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def exposes(self, found: os.stat_result) -> bool:
        """Whether users other than root, the service and the caller can read or change it."""
        if found.st_mode & stat.S_IRWXO or found.st_mode & stat.S_IWGRP:
            return True
        return bool(found.st_mode & stat.S_IRWXG) and not is_private_group(found.st_gid, {0, self.uid, os.geteuid()})

    def closing(self, path: Path, found: os.stat_result) -> str:
        """The command that keeps the others out, and lets the service in."""
        if found.st_uid == self.uid:
            return f"chmod go= {path}"
        return f"chown root:{self.name} {path} && chmod {'750' if stat.S_ISDIR(found.st_mode) else '640'} {path}"

    def reads(self, found: os.stat_result) -> bool:
        return self._may(found, stat.S_IRUSR)

    def writes(self, found: os.stat_result) -> bool:
        return self._may(found, stat.S_IWUSR)

    def _may(self, found: os.stat_result, bit: int) -> bool:
        if self.uid == 0:
            return True
        if found.st_uid == self.uid:
            return bool(found.st_mode & bit)
        try:
            user = pwd.getpwuid(self.uid)
        except KeyError:
            return bool(found.st_mode & bit >> 6)
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        return bool(found.st_mode & (bit >> 3 if found.st_gid in groups else bit >> 6))


def _sqlite_file(configuration: Configuration) -> Path | None:
    url = make_url(configuration.catalog.url)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except OSError as failure:
        return failure.errno == errno.ENOENT
    return False
