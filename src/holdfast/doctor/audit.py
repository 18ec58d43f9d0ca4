"""Doctor on the audit log: its key, its last checkpoint, and what waits to be logged."""

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

from holdfast.audit.checkpoint import open_checkpoint
from holdfast.audit.faults import AuditFault
from holdfast.audit.tiles import CHECKPOINT
from holdfast.config.audit_key import open_audit_key
from holdfast.config.errors import ConfigurationError
from holdfast.config.model import Configuration
from holdfast.finding import Finding, error, note, ok, warning
from holdfast.hsm.faults import HsmFault
from holdfast.store.log_directory import directory_reader
from holdfast.store.node_log import SPOOL
from holdfast.store.spool import spooled

_SUBJECT = "audit log"
_OVERDUE = 600.0
"""Seconds after which an event should have been logged long ago."""


def examine_audit(configuration: Configuration, *, now: datetime) -> Iterator[Finding]:
    """Findings; none where no audit log is configured. Raises OSError."""
    audit = configuration.audit
    if audit is None:
        return
    if audit.key_file is not None:
        yield warning(
            "audit-key-in-file",
            _SUBJECT,
            f"{audit.key_file} holds the key that signs it",
            why="Whoever can read the file can make another log that verifies.",
            remedy="Remove `key_file` from [audit], and make a key in the HSM: `holdfast audit key create`.",
        )
    try:
        with closing(open_audit_key(configuration, audit, name=audit.name)) as opened:
            key = opened.key
    except (HsmFault, ConfigurationError) as fault:
        yield error(
            "audit-key",
            _SUBJECT,
            f"the key that signs it cannot be used: {getattr(fault, 'message', fault)}",
            why="Events are spooled, and nothing of them is logged or signed.",
            remedy="Make it with `holdfast audit key create`, or correct `hsm` and `key` in [audit].",
        )
        return
    raw = directory_reader(audit.directory)(CHECKPOINT)
    if raw is None:
        yield note("audit-log-empty", _SUBJECT, "there is none yet: the proxy begins it when it starts")
        return
    try:
        size = open_checkpoint(raw, [key]).checkpoint.size
    except AuditFault as fault:
        yield error(
            "audit-checkpoint",
            _SUBJECT,
            f"its last checkpoint is not one of the key in use: {fault.message}",
            why="The proxy signs nothing that does not go on from a checkpoint of its own.",
            remedy="If `name` or the key was changed, change it back; a new log needs a new `directory`.",
        )
        return
    waiting = [piece.path for stream in spooled(audit.directory / SPOOL) for piece in stream.pieces]
    overdue = [path for path in waiting if now.timestamp() - path.stat().st_mtime > _OVERDUE]
    if overdue:
        yield warning(
            "audit-overdue",
            _SUBJECT,
            f"{len(overdue)} files of events wait to be logged for more than {_OVERDUE / 60:.0f} minutes",
            why="They are not signed yet: whoever can write the directory can still change them.",
            remedy="Is the proxy running? Its standard error says what keeps the audit log from being written.",
        )
    else:
        yield ok("audit-log", _SUBJECT, f"{size} entries are signed, and nothing waits for long")
