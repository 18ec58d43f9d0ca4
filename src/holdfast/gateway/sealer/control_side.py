"""The control log, on the host that keeps it: it waits for the catalog and for nothing of the node's own log."""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Self

from holdfast.audit.faults import AuditFault
from holdfast.audit.keys import Sign, VerifierKey
from holdfast.config.audit_key import AuditKey
from holdfast.config.model import Configuration
from holdfast.hsm.faults import HsmFault
from holdfast.store.control_log import ControlLog
from holdfast.store.errors import CatalogError
from holdfast.store.log_directory import LogDirectory
from holdfast.store.store import Catalog

_RETRY = 2.0
"""Seconds between two attempts after a failure."""


class ControlSide:
    """Takes changes from the catalog into the control log, and signs at most every `interval` seconds."""

    def __init__(
        self,
        configuration: Configuration,
        directory: Path,
        signer: tuple[VerifierKey, Sign],
        *,
        interval: float,
        now: Callable[[], datetime],
    ) -> None:
        self._configuration = configuration
        self._directory = directory
        self._signer = signer
        self._interval = interval
        self._now = now
        self._catalog: Catalog | None = None
        self._log: LogDirectory | None = None
        self._due = self._retry_at = time.monotonic()
        self._trouble: str | None = None

    @classmethod
    def of(cls, configuration: Configuration, key: AuditKey, *, now: Callable[[], datetime]) -> Self | None:
        """With the node's own key; None where this host keeps no control log."""
        audit = configuration.audit
        if audit is None or audit.control_directory is None or audit.control_name is None:
            return None
        own = VerifierKey(audit.control_name, key.key.type, key.key.public)
        return cls(configuration, audit.control_directory, (own, key.sign), interval=audit.interval_s, now=now)

    def turn(self, *, last: bool) -> str | None:
        """Log what waits, and sign it if that is due, or this is the `last` turn; why it is not possible, if so."""
        if time.monotonic() < self._retry_at and not last:
            return self._trouble
        try:
            log, catalog = self._open()
            ControlLog(log, catalog).pump()
            if log.size > log.signed.checkpoint.size and (last or time.monotonic() >= self._due):
                log.checkpoint()
                self._due = time.monotonic() + self._interval
        except (AuditFault, CatalogError, HsmFault, OSError) as error:
            self._trouble = f"changes do not reach the control log: {getattr(error, 'message', None) or error}"
            self._retry_at = time.monotonic() + _RETRY
            if not isinstance(error, CatalogError | HsmFault):
                self.close()
        else:
            self._trouble = None
        return self._trouble

    def close(self) -> None:
        """Let others open the log."""
        log, self._log = self._log, None
        catalog, self._catalog = self._catalog, None
        if log is not None:
            log.close()
        if catalog is not None:
            with suppress(CatalogError):
                catalog.close()

    def _open(self) -> tuple[LogDirectory, Catalog]:
        settings = self._configuration.catalog
        if self._catalog is None:
            self._catalog = Catalog.open(
                settings.url, settings.secrets_directory, reference_prefix=settings.reference_prefix, now=self._now
            )
        if self._log is None:
            self._log = LogDirectory(self._directory, [self._signer])
        return self._log, self._catalog
