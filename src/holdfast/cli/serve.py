"""`holdfast serve`: the proxy itself."""

import typer

from holdfast.cli.options import ConfigOption, configuration_path
from holdfast.config.load import load
from holdfast.proxy.supervisor import serve as run

app = typer.Typer()


@app.command()
def serve(*, config: ConfigOption = None) -> None:
    """Run the proxy until SIGTERM or Ctrl-C; SIGHUP loads the configuration and certificates again."""
    raise typer.Exit(run(load(configuration_path(config))))
