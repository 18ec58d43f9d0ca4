"""`holdfast doctor`: names each mistake of an installation, with its remedy."""

import textwrap

import typer

from holdfast.admin.doctor.examination import examine
from holdfast.admin.doctor.finding import Finding, Severity, worst
from holdfast.cli import output
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import ConfigOption, JsonOption, read_configuration

app = typer.Typer()

_CODES = {Severity.WARNING: ExitCode.WARNINGS, Severity.ERROR: ExitCode.ERRORS}
_INDENT = " " * 9
_WIDTH = 110


@app.command()
def doctor(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Examine HSM, keys, certificate, clock, catalog and files; name each mistake and its remedy.

    The exit code says the worst: 0 ok or notes, 10 warnings, 11 errors. The output holds no secret.
    """
    configuration = read_configuration(config)
    findings = []
    for finding in examine(configuration, now=output.utc_now):
        findings.append(finding)
        if not as_json:
            output.data(_in_words(finding))
    severity = worst(findings)
    if as_json:
        output.json({"worst": severity, "findings": findings})
    else:
        counts = [f"{sum(finding.severity is kind for finding in findings)} {kind}" for kind in reversed(Severity)]
        output.data(f"\n{', '.join(counts)}")
    raise typer.Exit(_CODES.get(severity, ExitCode.OK))


def _in_words(finding: Finding) -> str:
    lines = [f"{finding.severity:<8} {finding.subject}: {finding.what}  [{finding.code}]"]
    for label, text in (("Why", finding.why), ("Remedy", finding.remedy)):
        if text:
            lines += textwrap.wrap(
                f"{label}: {text}", _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT + "  "
            )
    return "\n".join(lines)
