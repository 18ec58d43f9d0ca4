"""`holdfast init`: a complete setup on SoftHSM, or the catalog of a configuration that exists."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.options import ConfigOption, JsonOption, read_configuration
from holdfast.control.catalogs import create_catalog
from holdfast.setup.init import Setup, Wanted
from holdfast.store.changes import require_keystore_name
from holdfast.xks.types import ExternalKeyId, UriPathPrefix

app = typer.Typer()


@app.command()
def init(
    *,
    directory: Annotated[
        Path | None, typer.Option(help="Make a complete setup with SoftHSM here.", show_default=False)
    ] = None,
    name: Annotated[str, typer.Option(help="The keystore's name; its prefix is /NAME, its key NAME-key.")] = "demo",
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1 of a new configuration.", min=1, max=65535)] = 8443,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a complete setup with SoftHSM in a directory, or only the catalog of a configuration that exists.

    With --directory: SoftHSM token, AES-256 key, TLS certificate for localhost, configuration, catalog, keystore,
    credential. Run again, it keeps all of these and completes what is missing.

    With --config: makes the catalog that the configuration names, or upgrades its tables.
    """
    if directory is None:
        configuration = read_configuration(config)
        with closing(create_catalog(configuration, now=output.utc_now)):
            output.say(
                f"Configuration {configuration.path}, catalog {configuration.catalog.url}: the catalog is ready."
            )
        if as_json:
            output.json({"configuration": str(configuration.path), "catalog": configuration.catalog.url})
        return
    require_keystore_name(name)
    wanted = Wanted(name, UriPathPrefix.parse(f"/{name}"), ExternalKeyId.parse(f"{name}-key"), port)
    setup = Setup(directory, wanted, output.utc_now)
    for line in setup.run():
        output.say(line)
    if as_json:
        output.json(
            {
                "configuration": str(setup.configuration_path),
                "keystore": name,
                "external_key_id": str(wanted.key),
                "certificate_authority": str(setup.tls.authority),
                "console_file": str(setup.console_file),
            }
        )
    else:
        output.data(setup.next_steps(Path(sys.executable).parent))
