"""`holdfast doctor`: names each mistake of an installation, with its remedy."""

import textwrap
from collections import Counter

import typer

from holdfast.admin.doctor.examination import examine
from holdfast.admin.doctor.finding import Finding, Severity, worst
from holdfast.cli import output
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import ConfigOption, JsonOption, read_configuration

app = typer.Typer()

_CODES = {Severity.WARNING: ExitCode.WARNINGS, Severity.ERROR: ExitCode.ERRORS}
_COUNTED = {
    Severity.ERROR: ("error", "errors"),
    Severity.WARNING: ("warning", "warnings"),
    Severity.NOTE: ("note", "notes"),
    Severity.OK: ("ok", "ok"),
}
_INDENT = " " * 9
_WIDTH = 110


@app.command()
def doctor(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Examine HSM, keys, catalog, certificate, clock and files; name each mistake and its remedy.

    The exit code says the worst: 0 ok or notes, 10 warnings, 11 errors. The output holds no secret.
    """
    configuration = read_configuration(config)
    findings: list[Finding] = []
    for finding in examine(configuration, now=output.utc_now):
        if not as_json:
            output.data(_in_words(finding, findings))
        findings.append(finding)
    severity = worst(findings)
    if as_json:
        output.json({"worst": severity, "findings": findings})
    else:
        output.data(_summary(findings))
    raise typer.Exit(_CODES.get(severity, ExitCode.OK))


def _summary(findings: list[Finding]) -> str:
    """The counts, and once more each error: the screen has scrolled on."""
    counts = Counter(finding.severity for finding in findings)
    errors = [_headline(finding) for finding in findings if finding.severity is Severity.ERROR]
    told = ", ".join(f"{counts[kind]} {words[counts[kind] != 1]}" for kind, words in _COUNTED.items())
    return "\n".join(("", told, *errors))


def _headline(finding: Finding) -> str:
    return f"{finding.severity:<8} {finding.subject}: {finding.what}  [{finding.code}]"


def _in_words(finding: Finding, earlier: list[Finding]) -> str:
    """One finding. Reason and remedy that were told already, of another key for example, are not told again."""
    lines = [_headline(finding)]
    told = {text for other in earlier if other.code == finding.code for text in (other.why, other.remedy)}
    for label, text in (("Why", finding.why), ("Remedy", finding.remedy)):
        if text and text not in told:
            lines += textwrap.wrap(
                f"{label}: {text}", _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT + "  "
            )
    return "\n".join(lines)
