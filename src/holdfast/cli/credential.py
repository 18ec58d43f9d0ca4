"""`holdfast credential`: proxy authentication credentials, with which KMS signs its requests."""

from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out, changing, say_done
from holdfast.cli.options import ConfigOption, Installation, JsonOption, KeystoreArgument, installation
from holdfast.cli.tables import table
from holdfast.control.actions.credentials import IssueCredential, ReferenceCredential, RetireCredential
from holdfast.control.explanations import moment
from holdfast.control.files import create_file
from holdfast.control.issue import new_access_key_id, new_secret
from holdfast.control.lookup import find_credential
from holdfast.store.reads import CredentialRow
from holdfast.xks.types import AccessKeyId

app = typer.Typer(help="Proxy authentication credentials of a keystore.", no_args_is_help=True)


@app.command()
@changing
def issue(
    keystore: KeystoreArgument,
    *,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "--output", help="Write the secret to this new file, readable by you alone.", show_default=False
        ),
    ] = None,
    show_secret: Annotated[bool, typer.Option("--show-secret", help="Print the secret, once.")] = False,
    reference: Annotated[
        str | None,
        typer.Option(
            help="A secret that you keep yourself: env:NAME or credential:NAME (systemd). Needs --access-key-id.",
            show_default=False,
        ),
    ] = None,
    access_key_id: Annotated[
        str | None, typer.Option(help="The access key id of a --reference.", show_default=False)
    ] = None,
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Issue another credential; those that exist stay live.

    The secret is printed only with --show-secret. `holdfast keystore config` gives it to KMS.
    """
    if (reference is None) is not (access_key_id is None):
        raise typer.BadParameter("--reference and --access-key-id belong together: give both, or neither")
    with installation(config) as here:
        if reference is not None and access_key_id is not None:
            named = AccessKeyId.parse(access_key_id).value
            refer = ReferenceCredential(keystore=keystore, access_key_id=named, reference=reference)
            done = carry_out(here, refer, how, ask=False)
            _say_issued(here, keystore, named, secret=None, as_json=as_json)
            say_done(here, refer, done)
            return
        identity, secret = new_access_key_id(), new_secret()
        issue = IssueCredential(keystore=keystore, access_key_id=identity.value)
        if output_file is not None:
            # First the file: a secret of no credential opens nothing, a credential whose secret is lost
            # would stay behind.
            create_file(output_file, secret.reveal() + b"\n")
        try:
            done = carry_out(here, issue, how, ask=False, given=secret)
        except BaseException:
            if output_file is not None:
                output_file.unlink()
            raise
        if output_file is not None:
            output.say(f"Wrote the secret access key to {output_file}.")
        _say_issued(
            here, keystore, str(identity), secret=secret.reveal().decode() if show_secret else None, as_json=as_json
        )
        say_done(here, issue, done)


@app.command("list")
def list_(
    keystore: Annotated[str | None, typer.Argument(help="Only this keystore's.", show_default=False)] = None,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List credentials, retired ones too, and when each was last used."""
    with installation(config, changes=False) as here:
        rows = here.catalog.credentials(keystore)
    if as_json:
        output.json([_as_json(row) for row in rows])
        return
    now = output.utc_now()
    table(
        ("ACCESS KEY ID", "KEYSTORE", "STATE", "ISSUED", "LAST USED"),
        [
            (
                row.access_key_id,
                row.keystore,
                "live" if row.retired_at is None else "retired",
                moment(row.created_at, now),
                moment(row.last_used_at, now),
            )
            for row in rows
        ],
        empty="There is no credential yet: `holdfast credential issue KEYSTORE` makes one.",
    )


@app.command()
@changing
def retire(
    access_key_id: Annotated[str, typer.Argument(help="The credential's access key id.", show_default=False)],
    *,
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a credential permanently, after showing when it was last used."""
    with installation(config) as here:
        action = RetireCredential(access_key_id=access_key_id)
        done = carry_out(here, action, how)
        output.say(
            f"{'The credential' if done is None else 'Retired the credential'} {access_key_id}"
            f"{' is retired already' if done is None else ''}."
        )
        say_done(here, action, done)
        row = find_credential(here.catalog, access_key_id)
    if as_json:
        output.json(_as_json(row))


def _say_issued(here: Installation, keystore: str, access_key_id: str, *, secret: str | None, as_json: bool) -> None:
    shown = {} if secret is None else {"secret_access_key": secret}
    if as_json:
        output.json({"keystore": keystore, "access_key_id": access_key_id, **shown})
        return
    output.say(f"Issued a credential for the keystore {keystore!r}.")
    output.data(f"access key id: {access_key_id}")
    if secret is not None:
        output.data(f"secret access key: {secret}")
    config = here.command(f"keystore config {keystore} --output FILE")
    output.say(f"Next: `{config}` writes what the KMS console takes.")


def _as_json(row: CredentialRow) -> dict[str, Any]:
    return {
        "access_key_id": row.access_key_id,
        "keystore": row.keystore,
        "state": "live" if row.retired_at is None else "retired",
        "secret_ref": row.secret_ref,
        "created_at": row.created_at,
        "last_used_at": row.last_used_at,
        "retired_at": row.retired_at,
    }
