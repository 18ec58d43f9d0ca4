"""`holdfast prove`: one Encrypt and one Decrypt over the wire, as KMS would send them."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.options import ConfigOption, JsonOption, installation
from holdfast.control.kms_connection import connection_of, credential_in_use, local_endpoint
from holdfast.doctor.prove import prove as run
from holdfast.doctor.prove import wait_until_ready
from holdfast.xks.types import ExternalKeyId

app = typer.Typer()


@app.command()
def prove(
    keystore: Annotated[str, typer.Argument(help="The keystore's name.", show_default=False)],
    key: Annotated[str, typer.Argument(help="One of its external key ids.", show_default=False)],
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(help="The proxy's URL. Default: localhost, at the configured port.", show_default=False),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="The certificate authority to trust (PEM).", show_default=False)
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the proxy to be ready.", min=0)] = 0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encrypt and decrypt once over the wire, as KMS does, with a credential of the catalog."""
    with installation(config, changes=False) as here:
        url = endpoint or local_endpoint(here.configuration)
        connection = connection_of(
            here.catalog, keystore, url, access_key_id=credential_in_use(here.catalog, keystore)
        )
        # A key that is not registered is for the proxy to refuse.
        pins = {row.external_key_id: row.pinned_to for row in here.catalog.keys(keystore)}
    if wait:
        wait_until_ready(url, authority=ca, seconds=wait, now=output.utc_now)
    proof = run(connection, ExternalKeyId.parse(key), pinned_to=pins.get(key, ()), authority=ca, now=output.utc_now)
    if as_json:
        output.json({"endpoint": url, "encrypt_ms": proof.encrypt_ms, "decrypt_ms": proof.decrypt_ms})
        return
    output.say(f"{url} encrypted in {proof.encrypt_ms:.1f} ms and decrypted in {proof.decrypt_ms:.1f} ms.")
