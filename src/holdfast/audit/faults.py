"""What can be wrong with an audit log, a checkpoint or a proof."""

from dataclasses import dataclass
from enum import StrEnum


class AuditFault(Exception):
    """Evidence that does not hold. `message` says what and where, fit for a terminal."""

    def __init__(self, message: str) -> None:
        self.message = message if message.isprintable() else ascii(message)[1:-1]
        super().__init__(self.message)


class Malformed(AuditFault):
    """Bytes that are not what their format says."""


class NotSigned(AuditFault):
    """A checkpoint without a valid signature of the key that must have signed it."""


class NotProven(AuditFault):
    """A Merkle proof that does not lead to the root that was signed."""


class Kind(StrEnum):
    """What happened to a part of a log."""

    REMOVED = "removed"
    TRUNCATED = "truncated"
    CHANGED = "changed"
    REORDERED = "reordered"
    REWRITTEN = "rewritten"
    """Entries and tiles agree with each other, but not with the checkpoint."""
    ROLLED_BACK = "rolled back"
    """The log is smaller than, or another one than, a checkpoint of it that was kept elsewhere."""
    MALFORMED = "malformed"
    """An entry that was signed, but is not a record, or contradicts itself."""
    GAP = "gap"
    """Sequence numbers of a stream of events that no record accounts for."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: in which file, at which entry of the log (from 0; None: the file as a whole)."""

    kind: Kind
    path: str
    text: str
    index: int | None = None


class LogDamaged(AuditFault):
    """The log is not the one that was signed. `findings` has at least one."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__("; ".join(finding.text for finding in findings))
        self.findings = findings
