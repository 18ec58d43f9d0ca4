"""Doctor on file permissions: who besides the proxy's user can read or change what the keys rest on."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import make_url

from holdfast.admin.doctor.finding import Finding, error, ok, warning
from holdfast.catalog.secret_reference import Source
from holdfast.config.model import Configuration

_OTHERS = 0o077
_OTHERS_WRITE = 0o022


def examine_files(configuration: Configuration) -> Iterator[Finding]:
    """Findings on every file and directory that the configuration names."""
    bad = [*_private(configuration), *_unwritable(configuration)]
    yield from bad
    if not bad:
        yield ok("files", "files", "secrets are readable by their owner alone; nobody else can change the rest")


def _private(configuration: Configuration) -> Iterator[Finding]:
    for path, holds in _secrets(configuration):
        mode = _mode(path)
        if mode is not None and mode & _OTHERS:
            yield error(
                "file-too-open",
                str(path),
                f"it holds {holds}, and has the mode {mode:04o}",
                why="Others on this host can read or change it.",
                remedy=f"chmod {'u=rwX,go=' if path.is_dir() else '600'} {path}; if others had accounts here,"
                " replace what it holds.",
            )


def _unwritable(configuration: Configuration) -> Iterator[Finding]:
    for path, power in _trusted(configuration):
        mode = _mode(path)
        if mode is not None and mode & _OTHERS_WRITE and not _only_own_group(path, mode):
            yield warning(
                "file-writable",
                str(path),
                f"it can be changed by others (mode {mode:04o})",
                why=f"Who changes {power}.",
                remedy=f"chmod go-w {path}",
            )


def _trusted(configuration: Configuration) -> Iterator[tuple[Path, str]]:
    control = "the configuration or the PKCS#11 library controls the proxy and learns its PIN"
    yield configuration.path, control
    for table in configuration.hsms.values():
        if Path(table.settings.library).is_absolute():
            yield Path(table.settings.library), control
    if configuration.authorization is not None:
        yield configuration.authorization.policies, "the policies decides who may use the keys"


def _secrets(configuration: Configuration) -> Iterator[tuple[Path, str]]:
    for table in configuration.hsms.values():
        if table.pin is not None and table.pin.source is Source.FILE:
            yield Path(table.pin.name), "the PIN"
    if configuration.tls is not None:
        yield configuration.tls.private_key, "the TLS private key"
    secrets = configuration.catalog.secrets
    yield secrets, "the secret access keys"
    if secrets.is_dir():
        for path in sorted(secrets.iterdir()):
            yield path, "a secret access key"
    database = make_url(configuration.catalog.url)
    if database.get_backend_name() == "sqlite" and database.database:
        yield Path(database.database), "the catalog"


def _mode(path: Path) -> int | None:
    """The permission bits; None where there is no such file, which other findings say."""
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _only_own_group(path: Path, mode: int) -> bool:
    """Whether the group alone can write, and is the group of the user who runs this."""
    return not mode & stat.S_IWOTH and path.stat().st_gid == os.getgid()
