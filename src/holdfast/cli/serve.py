"""`holdfast serve`: the proxy itself."""

import typer

from holdfast.cli.options import ConfigOption, configuration_path
from holdfast.config.load import load
from holdfast.doctor.files import exposed_secrets
from holdfast.gateway.observe.notify import say
from holdfast.gateway.supervisor.supervisor import serve as run

app = typer.Typer()


@app.command()
def serve(*, config: ConfigOption = None) -> None:
    """Run the proxy until SIGTERM or Ctrl-C; SIGHUP loads the configuration and certificates again."""
    configuration = load(configuration_path(config))
    for finding in exposed_secrets(configuration):
        # Not by `output`: a standard error that cannot be written must not keep the service from starting.
        say("warning", f"{finding.subject}: {finding.what}. {finding.remedy}")
    raise typer.Exit(run(configuration))
