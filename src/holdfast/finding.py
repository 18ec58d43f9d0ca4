"""What doctor reports: one finding per fact that it checked."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """From good to bad. NOTE: worth knowing; WARNING: will cause trouble; ERROR: does not work, or is not safe."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact. `code` is stable, for scripts; `subject` names the HSM, key or file; `why` and `remedy` may be empty.

    A finding holds no secret: people send them to others for help.
    """

    severity: Severity
    code: str
    subject: str
    what: str
    why: str = ""
    remedy: str = ""


def ok(code: str, subject: str, what: str) -> Finding:
    """As it should be."""
    return Finding(Severity.OK, code, subject, what)


def note(code: str, subject: str, what: str, *, why: str = "", remedy: str = "") -> Finding:
    """Worth knowing."""
    return Finding(Severity.NOTE, code, subject, what, why, remedy)


def warning(code: str, subject: str, what: str, *, why: str, remedy: str) -> Finding:
    """Will cause trouble one day."""
    return Finding(Severity.WARNING, code, subject, what, why, remedy)


def error(code: str, subject: str, what: str, *, why: str, remedy: str) -> Finding:
    """Does not work, or is not safe."""
    return Finding(Severity.ERROR, code, subject, what, why, remedy)


def worst(findings: Iterable[Finding]) -> Severity:
    """The highest severity among them; OK where there are none."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.OK)
