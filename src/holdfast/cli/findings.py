"""How `doctor` and `config check` print findings: what is ok at once, the others at the end, the worst last."""

import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable

import typer

from holdfast.cli import output
from holdfast.cli.exit_codes import ExitCode
from holdfast.finding import Finding, Severity, worst

_CODES = {Severity.WARNING: ExitCode.WARNINGS, Severity.ERROR: ExitCode.ERRORS}
_COUNTED = {
    Severity.ERROR: ("error", "errors"),
    Severity.WARNING: ("warning", "warnings"),
    Severity.NOTE: ("note", "notes"),
    Severity.OK: ("ok", "ok"),
}
_INDENT = " " * 9
_WIDEST = 110


def report_findings(findings: Iterable[Finding], *, as_json: bool) -> None:
    """Prints the findings, and ends the command with the code of the worst: raises typer.Exit."""
    found = []
    for finding in findings:
        found.append(finding)
        if finding.severity is Severity.OK and not as_json:
            output.data(_wrapped(f"{finding.severity:<8} ", f"{finding.subject}: {finding.what}"))
    severity = worst(found)
    if as_json:
        output.json({"worst": severity, "findings": found})
    else:
        _print_the_rest(found)
    raise typer.Exit(_CODES.get(severity, ExitCode.OK))


def _print_the_rest(found: list[Finding]) -> None:
    order = list(Severity)
    printed: set[tuple[str, str]] = set()
    for finding in sorted(found, key=lambda finding: order.index(finding.severity)):
        if finding.severity is Severity.OK:
            continue
        headline = f"{finding.subject}: {finding.what}  [{finding.code}]"
        output.data("\n" + _wrapped(f"{finding.severity:<8} ", headline))
        for label, text in (("Why", finding.why), ("Remedy", finding.remedy)):
            # What was said of one key already is not said again of the next.
            if text and (finding.code, text) not in printed:
                output.data(_wrapped(_INDENT, f"{label}: {text}", deeper="  "))
                printed.add((finding.code, text))
    counts = Counter(finding.severity for finding in found)
    output.data("\n" + ", ".join(f"{counts[kind]} {words[counts[kind] != 1]}" for kind, words in _COUNTED.items()))


def _wrapped(start: str, text: str, *, deeper: str = "") -> str:
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=_INDENT + deeper,
        # Paths and commands are copied: they stay whole.
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)
