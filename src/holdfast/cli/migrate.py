"""`holdfast migrate`: takes over the setup of another XKS proxy."""

import os
from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.confirm import confirm
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import JsonOption, YesOption
from holdfast.setup.aws_sample import read_settings
from holdfast.setup.migration import Migration, look_at_hsm

app = typer.Typer(help="Take over the setup of another XKS proxy.", no_args_is_help=True)


@app.callback()
def migrate() -> None:
    """Take over the setup of another XKS proxy."""


@app.command("aws-sample")
def aws_sample(
    settings: Annotated[Path, typer.Argument(help="The settings.toml that AWS's sample proxy runs with.")],
    *,
    directory: Annotated[Path, typer.Option(help="The directory for the configuration and the PIN.")] = Path(
        "holdfast"
    ),
    state: Annotated[
        Path | None,
        typer.Option(help="The directory for the catalog and the secrets, if it is another one.", show_default=False),
    ] = None,
    health_key: Annotated[
        str, typer.Option(help="CKA_LABEL of an AES-256 key for health probes; not one that KMS uses.")
    ] = "holdfast-health",
    prior_encryptions: Annotated[
        int,
        typer.Option(
            help="How often each key may have encrypted already. NIST allows 2^32 in all.", min=0, max=2**32
        ),
    ] = 0,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Turn the settings of AWS's sample XKS proxy into a configuration, keystores, credentials and keys.

    The keys stay where they are, and what that proxy encrypted still decrypts. Exit code 14: done, but some of what
    the file names was not taken over.
    """
    read = read_settings(settings, variables=os.environ)
    hsm = look_at_hsm(read, health_key, variables=os.environ)
    migration = Migration(read, settings, directory, state or directory, health_key, hsm, prior_encryptions)
    confirm(migration.plan(now=output.utc_now), yes=yes)
    for line in migration.apply(now=output.utc_now):
        output.say(line)
    if as_json:
        output.json(
            {
                "configuration": str(migration.configuration_path),
                "keystores": [{"name": store.name, "keys": migration.labels(store)} for store in read.stores],
                "not_taken_over": {"keys": hsm.unusable, "key_stores": migration.public_stores},
            }
        )
    named = f"--config {migration.configuration_path}"
    output.say(f"Next: `holdfast doctor {named}`, then `holdfast serve {named}`.")
    missing = [f"the key {label}" for label in hsm.unusable]
    missing += [f"the key store {prefix!r}" for prefix in migration.public_stores]
    if missing:
        output.warning(f"not taken over: {', '.join(missing)}. The plan above says why.")
        raise typer.Exit(ExitCode.INCOMPLETE)
