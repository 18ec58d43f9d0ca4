"""`holdfast doctor`: finds the mistakes of an installation, and how to correct each."""

import typer

from holdfast.cli import output
from holdfast.cli.findings import report_findings
from holdfast.cli.options import ConfigOption, JsonOption, read_configuration
from holdfast.doctor.examination import examine

app = typer.Typer()


@app.command()
def doctor(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check HSM, keys, catalog, certificate, clock and files; name each mistake and its remedy.

    The exit code says the worst: 0 ok or notes, 10 warnings, 11 errors. The output holds no secret.
    """
    report_findings(examine(read_configuration(config), now=output.utc_now), as_json=as_json)
