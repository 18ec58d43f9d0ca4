"""Logs and signs what the workers have spooled, until the supervisor ends it.

A process of its own, for two reasons: the supervisor loads no PKCS#11 library, since it is what replaces a process
that such a library has killed; and a worker has no time for disks. No request waits for this process: while it is
gone, or its HSM is, the workers go on to spool.
"""

import os
import signal
import time
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime

from holdfast.audit.faults import AuditFault
from holdfast.audit.keys import VerifierKey
from holdfast.audit.records import Actor
from holdfast.config.audit_key import open_audit_key
from holdfast.config.errors import ConfigurationError
from holdfast.config.storage import Audit
from holdfast.gateway.observe.messages import SealerReport
from holdfast.gateway.sealer.control_side import ControlSide
from holdfast.gateway.sealer.cosigning import Cosigning
from holdfast.gateway.sealer.start import SealerStart
from holdfast.hsm.faults import HsmFault, LoginRefused
from holdfast.store.log_directory import LogDirectory, LogUnusable
from holdfast.store.node_log import SPOOL, NodeLog

_TURN = 1.0
"""Seconds between two looks at the spool, at most."""
_RETRY = 2.0
"""Seconds between two attempts to open a log or to sign it."""
_PATIENCE = 5.0
"""Seconds in which the sealer of a supervisor that was killed lets go of the log."""
_SOON = 0.2
_PRUNE_EVERY = 3600.0
_SELF = Actor(name="holdfast", known_by="configuration", where="keep_days in [audit]")
_EXPECTED = (AuditFault, HsmFault, ConfigurationError, OSError)


def run(start: SealerStart) -> None:
    """The process, from its first line to its exit."""
    # The supervisor decides for all; it ends this process by closing the connection, after the workers have gone.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    audit = start.configuration.audit
    if audit is not None:
        with suppress(BrokenPipeError, ConnectionResetError):
            _Sealer(start, audit).run()
    # A call that hangs in the HSM's library would keep the interpreter from ending.
    os._exit(0)


class _Sealer:
    def __init__(self, start: SealerStart, audit: Audit) -> None:
        self._start = start
        self._audit = audit
        self._ending = False
        self._began = _now().timestamp()
        self._refused = False
        self._cosigning = (
            None
            if audit.witness_url is None or audit.witness_key is None
            else Cosigning(audit.witness_url, VerifierKey.parse(audit.witness_key))
        )
        self._signed_at: float | None = None
        self._cosigned_at: float | None = None

    def run(self) -> None:
        """Open the log, and serve it; again after whatever goes wrong."""
        while not self._ending:
            try:
                key = open_audit_key(self._start.configuration, self._audit, name=self._audit.name)
                with closing(key), LogDirectory(self._audit.directory, [(key.key, key.sign)]) as log:
                    control = ControlSide.of(self._start.configuration, key, now=_now)
                    with closing(control) if control is not None else nullcontext():
                        self._serve(NodeLog(log, self._audit.directory / SPOOL, now=_now), control)
            except _EXPECTED as error:
                if isinstance(error, LogUnusable) and _now().timestamp() < self._began + _PATIENCE:
                    self._wait(_SOON)
                    continue
                self._refused = isinstance(error, LoginRefused)
                self._tell(SealerReport(at=_now().timestamp(), waiting_since=self._began, trouble=_words(error)))
            while self._refused and not self._ending:
                self._wait(_RETRY)  # tokens lock after a few refused logins
            self._wait(_RETRY)

    def _serve(self, node: NodeLog, control: ControlSide | None) -> None:
        """Until the supervisor ends it. Raises what makes it necessary to open the log again."""
        turn = min(_TURN, self._audit.interval_s / 2)
        due, waiting_since, trouble = time.monotonic(), None, None
        prune_at = time.monotonic()
        while True:
            ending = self._ending
            node.seal()
            if self._audit.keep is not None and time.monotonic() >= prune_at:
                oldest = _now() - self._audit.keep
                node.prune(oldest.replace(hour=0, minute=0, second=0, microsecond=0), actor=_SELF)
                prune_at = time.monotonic() + _PRUNE_EVERY
            if node.size > node.signed.checkpoint.size:
                waiting_since = waiting_since or _now().timestamp()
                if ending or time.monotonic() >= due:
                    trouble = self._attempt(node)
                    due = time.monotonic() + (self._audit.interval_s if trouble is None else _RETRY)
                    waiting_since = None if trouble is None else waiting_since
            control_trouble = None if control is None else control.turn(last=ending)
            self._tell(
                SealerReport(
                    at=_now().timestamp(),
                    entries=node.size,
                    signed=node.signed.checkpoint.size,
                    signed_at=self._signed_at,
                    cosigned_at=self._cosigned_at,
                    waiting_since=waiting_since,
                    events=node.counts.events,
                    lost=node.counts.lost,
                    cut=node.counts.cut,
                    trouble=trouble or control_trouble,
                )
            )
            if ending:
                return
            self._wait(turn)

    def _attempt(self, node: NodeLog) -> str | None:
        """Sign; why that is not possible at present, if it is not."""
        try:
            node.sign()
        except HsmFault as fault:
            return f"it cannot be signed, and events are logged unsigned until it can: {fault.message}"
        self._signed_at = _now().timestamp()
        if self._cosigning is None:
            return None
        trouble = self._cosigning.show(node.log)
        if trouble is None:
            self._cosigned_at = _now().timestamp()
        return trouble

    def _wait(self, seconds: float) -> None:
        """Wait, or begin to end: the supervisor has sent its only message, or has gone."""
        try:
            self._ending = self._ending or self._start.control.poll(seconds)
        except OSError:
            self._ending = True

    def _tell(self, report: SealerReport) -> None:
        with suppress(OSError):
            self._start.control.send(report)


def _words(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error)
    verb = "written" if isinstance(error, OSError) else "opened"
    return f"it cannot be {verb}, and events are spooled until it can: {message}"


def _now() -> datetime:
    return datetime.now(UTC)
