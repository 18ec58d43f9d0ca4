"""How a failed command reports: `holdfast: error:` and `hint:` on standard error, and an exit code."""

import sys
import traceback

import typer
from typer.exceptions import TyperException

from holdfast.cli.exit_codes import ExitCode, exit_code_of
from holdfast.cli.output import error, say
from holdfast.control.errors import AdminError
from holdfast.store.errors import Unavailable

_DEFECT_HINT = "This is a defect of Holdfast. Please report it with the lines above; they contain no secrets."


def report(failure: BaseException) -> ExitCode:
    """Says on standard error what happened and what to do next; returns the exit code."""
    code = exit_code_of(failure)
    match failure:
        case KeyboardInterrupt() | typer.Abort():
            error("interrupted")
        case TyperException() if failure.format_message().startswith("Usage:"):
            # A group without a subcommand: what comes as the error's text is its help.
            say(failure.format_message())
        case TyperException():
            error(failure.format_message(), hint=_usage_hint(failure))
        case AdminError():
            error(failure.message, hint=failure.hint)
        case _ if code is ExitCode.FAILED and not isinstance(failure, OSError):
            traceback.print_exception(failure, file=sys.stderr)
            error(f"{type(failure).__name__}: {failure}", hint=_DEFECT_HINT)
        case OSError() if failure.filename is not None:
            error(f"{failure.filename}: {failure.strerror}")
        case Unavailable():
            error(failure.message, hint=_catalog_hint(failure.message))
        case _:
            error(getattr(failure, "message", None) or str(failure), hint=getattr(failure, "hint", ""))
    return code


_WHO = "Run this as the service's user (`sudo -u holdfast`), and look at the user in `url` and at pg_hba.conf."
_CATALOG_CAUSES = {
    'FATAL:  role "': _WHO,
    "authentication failed": _WHO,
    "no pg_hba.conf entry": _WHO,
    'FATAL:  database "': "Make the database, or correct its name in `url` of [catalog].",
    "disk is full": "Make room on its disk (`df`).",
    "No space left": "Make room on its disk (`df`).",
    "disk I/O error": "Look at its file system: it may be full (`df`) or damaged.",
    "database is locked": "Another process holds its lock: `fuser -v FILE` names it. Try again.",
    "readonly database": "Run this as the service's user, and look whether its file system is mounted read-only.",
    "unable to open database file": "Run this as the service's user; `holdfast doctor` looks at the files.",
}


def _catalog_hint(message: str) -> str:
    """What to do about a catalog that does not answer; also how keys are stopped without one."""
    causes = [remedy for cause, remedy in _CATALOG_CAUSES.items() if cause in message]
    return " ".join((*causes, "To stop all keys meanwhile: `systemctl stop holdfast` on each proxy."))


def _usage_hint(failure: TyperException) -> str:
    context = getattr(failure, "ctx", None)
    return f"`{context.command_path} --help` shows what this command takes." if context else ""
