"""Notices that files have changed, once they have stopped changing."""

from collections.abc import Iterable
from pathlib import Path

from holdfast.config.model import Configuration

SETTLED = 1.0
"""Seconds without a further change: a certificate and its key are replaced one after the other."""

_Stamp = tuple[int, int, int] | None


def configuration_files(configuration: Configuration) -> set[Path]:
    """The files whose text is the configuration: a changed one is loaded as a new configuration."""
    authorization = configuration.authorization
    return {configuration.path} if authorization is None else {configuration.path, authorization.policies}


def watched_files(configuration: Configuration) -> set[Path]:
    """Those and the TLS files."""
    tables = (configuration.tls, configuration.health_tls, configuration.metrics_tls)
    named = [file for tls in tables if tls is not None for file in (tls.certificate, tls.private_key, tls.client_ca)]
    return configuration_files(configuration).union(file for file in named if file is not None)


class FileWatch:
    """Compares modification time, size and inode. A symbolic link counts as what it points to."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._known: dict[Path, _Stamp] = {}
        self._seen: dict[Path, _Stamp] = {}
        self._quiet_since = 0.0
        self.watch(files)

    def watch(self, files: Iterable[Path]) -> None:
        """Watch these files from now on, as they are now."""
        self._known = {file: _stamp(file) for file in files}
        self._seen = dict(self._known)

    def forget(self) -> None:
        """Take the files as they are now: the caller is about to read them."""
        self.watch(list(self._known))

    def changed(self, now: float) -> list[Path]:
        """The files that have changed and then rested; each change is reported once."""
        stamps = {file: _stamp(file) for file in self._known}
        if stamps != self._seen:
            self._seen = stamps
            self._quiet_since = now
            return []
        if stamps == self._known or now - self._quiet_since < SETTLED:
            return []
        changed = [file for file, stamp in stamps.items() if stamp != self._known[file]]
        self._known = stamps
        return changed


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
