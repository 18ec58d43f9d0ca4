"""The exit codes of every command, and the one place where a failure becomes one of them."""

from enum import IntEnum

from typer import Abort
from typer.exceptions import TyperException

from holdfast.audit.faults import AuditFault
from holdfast.config.errors import ConfigurationError
from holdfast.control import errors
from holdfast.hsm.faults import HsmFault, LoginRefused
from holdfast.secrets.errors import ReferenceRefused, SecretError
from holdfast.store import errors as catalog
from holdfast.xks.errors import XksError


class ExitCode(IntEnum):
    """What `$?` says; `MEANINGS` has the words."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNCONFIRMED = 3
    CONFIGURATION = 4
    NOT_FOUND = 5
    CONFLICT = 6
    HSM = 7
    CATALOG = 8
    PREREQUISITE = 9
    WARNINGS = 10
    ERRORS = 11
    LOGIN_REFUSED = 12
    DENIED = 13
    INCOMPLETE = 14
    EVIDENCE = 15
    PENDING = 16
    NOT_IN_FORCE = 17
    INTERRUPTED = 130
    UNREAD = 141


MEANINGS = {
    ExitCode.OK: "Done. Of `doctor`: nothing worse than a note. Of `check`: fit.",
    ExitCode.FAILED: "A failure without a code of its own. Of `check`: not judged, as no signed call was answered.",
    ExitCode.USAGE: "The command line is wrong.",
    ExitCode.UNCONFIRMED: "A change was not confirmed: declined, or no terminal to ask and no `--yes`.",
    ExitCode.CONFIGURATION: "The configuration, or another file or value that was given, is missing or wrong.",
    ExitCode.NOT_FOUND: "No keystore, credential or key goes by this name.",
    ExitCode.CONFLICT: "What is asked for contradicts what exists.",
    ExitCode.HSM: "The HSM refused, or cannot be reached.",
    ExitCode.CATALOG: "The catalog cannot be opened, read or written.",
    ExitCode.PREREQUISITE: "Something that must be installed or running is not.",
    ExitCode.WARNINGS: "Of `doctor`: the worst finding is a warning.",
    ExitCode.ERRORS: "Of `doctor`: the worst finding is an error. Of `check`: not fit, or the load was not carried.",
    ExitCode.LOGIN_REFUSED: "The HSM refused the PIN. Do not try again unattended: a token locks after a few tries.",
    ExitCode.DENIED: "Who asks may not do this. Of `authorization`: the policies deny the request.",
    ExitCode.INCOMPLETE: "Done, except for some: of `migrate` not taken over, of `key drill` not opened.",
    ExitCode.EVIDENCE: "Of `audit`: the log or the proof is not what was signed, or no given key signed it.",
    ExitCode.PENDING: "The change waits for the approval of others; nothing is changed yet.",
    ExitCode.NOT_IN_FORCE: "The change is made, and a node has not confirmed it in time; the output names the node.",
    ExitCode.INTERRUPTED: "Interrupted with Ctrl-C.",
    ExitCode.UNREAD: "The reader of the output has ended, as in `holdfast key list | true`.",
}
"""For the reference; a test holds it complete."""

_BY_TYPE: dict[type[BaseException], ExitCode] = {
    KeyboardInterrupt: ExitCode.INTERRUPTED,
    Abort: ExitCode.INTERRUPTED,
    TyperException: ExitCode.USAGE,
    errors.Unconfirmed: ExitCode.UNCONFIRMED,
    errors.Invalid: ExitCode.CONFIGURATION,
    errors.NotFound: ExitCode.NOT_FOUND,
    errors.Conflict: ExitCode.CONFLICT,
    errors.Denied: ExitCode.DENIED,
    errors.HsmRefused: ExitCode.HSM,
    errors.NotInForce: ExitCode.NOT_IN_FORCE,
    errors.Prerequisite: ExitCode.PREREQUISITE,
    catalog.CatalogError: ExitCode.CATALOG,
    catalog.Refused: ExitCode.CONFIGURATION,
    SecretError: ExitCode.CATALOG,
    ReferenceRefused: ExitCode.CONFIGURATION,
    catalog.NotFound: ExitCode.NOT_FOUND,
    catalog.AlreadyExists: ExitCode.CONFLICT,
    catalog.InUse: ExitCode.CONFLICT,
    ConfigurationError: ExitCode.CONFIGURATION,
    HsmFault: ExitCode.HSM,
    LoginRefused: ExitCode.LOGIN_REFUSED,
    XksError: ExitCode.CONFIGURATION,
    AuditFault: ExitCode.EVIDENCE,
}


def exit_code_of(failure: BaseException) -> ExitCode:
    """The code of the nearest class of `failure` that has one, else FAILED."""
    return next((_BY_TYPE[kind] for kind in type(failure).__mro__ if kind in _BY_TYPE), ExitCode.FAILED)
