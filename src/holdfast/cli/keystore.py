"""`holdfast keystore`: external key stores, each a path prefix with its own credentials and keys."""

from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.admin.files import create_file
from holdfast.admin.kms_connection import PLACEHOLDER, connection_of, credential_path
from holdfast.admin.lookup import find_keystore
from holdfast.admin.plans import Usage, block_plan, unblock_plan
from holdfast.catalog.changes import require_keystore_name
from holdfast.catalog.reads import KeystoreRow
from holdfast.cli import output
from holdfast.cli.confirm import confirm
from holdfast.cli.options import ConfigOption, Installation, JsonOption, YesOption, installation
from holdfast.cli.tables import fields, table
from holdfast.xks.types import UriPathPrefix

app = typer.Typer(help="External key stores: a path prefix, its credentials, its keys.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="The keystore's name.", show_default=False)]
AllOption = Annotated[bool, typer.Option("--all", help="Every keystore of the catalog.")]


@app.command()
def create(
    name: NameArgument,
    *,
    prefix: Annotated[
        str | None,
        typer.Option(
            help="The path before /kms/xks/v1, such as /prod; '' for none. Default: /NAME.", show_default=False
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="Accept requests signed for this AWS region only.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a keystore without keys and credentials."""
    require_keystore_name(name)
    with installation(config) as here:
        here.catalog.create_keystore(
            name, UriPathPrefix.parse(f"/{name}" if prefix is None else prefix), region=region
        )
        row = find_keystore(here.catalog, name)
        if as_json:
            output.json(_as_json(row, here))
            return
        output.say(f"Created the keystore {name!r} at {row.prefix.xks_proxy_uri_path}.")
        create, issue = here.command(f"key create {name} KEY-ID"), here.command(f"credential issue {name}")
        output.say(f"Next: `{create}`, then `{issue}`.")


@app.command("list")
def list_(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the keystores."""
    with installation(config, changes=False) as here:
        rows = [_as_json(row, here) for row in here.catalog.keystores()]
    if as_json:
        output.json(rows)
        return
    table(
        ("NAME", "URI PATH", "REGION", "STATE", "KEYS", "CREDENTIALS"),
        [
            (
                row["name"],
                row["xks_proxy_uri_path"],
                row["region"] or "any",
                "BLOCKED" if row["blocked"] else "open",
                str(row["keys"]),
                str(row["live_credentials"]),
            )
            for row in rows
        ],
        empty="There is no keystore yet: `holdfast keystore create NAME` makes one.",
    )


@app.command()
def show(name: NameArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one keystore."""
    with installation(config, changes=False) as here:
        row = _as_json(find_keystore(here.catalog, name), here)
    if as_json:
        output.json(row)
        return
    fields(row | {"region": row["region"] or "any", "last_used_at": row["last_used_at"] or "never"})


@app.command()
def block(
    name: Annotated[str | None, typer.Argument(help="The keystore's name.", show_default=False)] = None,
    *,
    all_: AllOption = False,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a keystore, or all of them: every Encrypt and Decrypt is refused within a second."""
    _set_blocked(name, all_=all_, yes=yes, config=config, as_json=as_json, blocked=True)


@app.command()
def unblock(
    name: Annotated[str | None, typer.Argument(help="The keystore's name.", show_default=False)] = None,
    *,
    all_: AllOption = False,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a block."""
    _set_blocked(name, all_=all_, yes=yes, config=config, as_json=as_json, blocked=False)


@app.command("config")
def config_(
    name: NameArgument,
    *,
    endpoint: Annotated[
        str | None,
        typer.Option(help="The URL that KMS will call, such as https://xks.example.com.", show_default=False),
    ] = None,
    access_key_id: Annotated[
        str | None, typer.Option(help="Which credential. Default: the newest live one.", show_default=False)
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option("--output", help="Write to this new file, readable by you alone, not to standard output."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Print what the KMS console takes: a JSON file.

    It is the specification's XKS proxy configuration file, and holds the secret access key.
    """
    with installation(config, changes=False) as here:
        url = endpoint or PLACEHOLDER
        connection = connection_of(here.catalog, name, url, access_key_id=access_key_id)
    if output_file is None:
        output.data(connection.console_file().decode().rstrip())
        return
    for path, content in (
        (output_file, connection.console_file()),
        (credential_path(output_file), connection.credential_file()),
    ):
        create_file(path, content)
        output.say(f"Wrote {path}, which holds a secret: delete it once KMS has it.")
    output.say("Upload the first in the KMS console, or with the AWS CLI and the second:")
    output.data(connection.aws_cli_line(credential_path(output_file)))


def _set_blocked(
    name: str | None, *, all_: bool, yes: bool, config: Path | None, as_json: bool, blocked: bool
) -> None:
    if (name is None) is not all_:
        raise typer.BadParameter("name one keystore, or say --all; `holdfast keystore list` shows them")
    with installation(config) as here:
        chosen = here.catalog.keystores() if name is None else [find_keystore(here.catalog, name)]
        rows = [row for row in chosen if row.blocked is not blocked]
        if rows:
            usage = Usage(here.catalog.credentials(None), here.catalog.keys(None), output.utc_now())
            confirm(block_plan(rows, usage) if blocked else unblock_plan(rows, usage), yes=yes)
        for row in rows:
            here.catalog.set_blocked(row.name, blocked=blocked)
        word = "blocked" if blocked else "open"
        if as_json:
            output.json([{"name": row.name, "blocked": blocked, "changed": row in rows} for row in chosen])
        else:
            output.say("\n".join(f"{row.name} is {word}{'' if row in rows else ' already'}." for row in chosen))


def _as_json(row: KeystoreRow, here: Installation) -> dict[str, Any]:
    credentials = here.catalog.credentials(row.name)
    used = [credential.last_used_at for credential in credentials if credential.last_used_at]
    return {
        "name": row.name,
        "xks_proxy_uri_path": row.prefix.xks_proxy_uri_path,
        "region": row.region,
        "blocked": row.blocked,
        "keys": len({key.external_key_id for key in here.catalog.keys(row.name)}),
        "live_credentials": sum(credential.retired_at is None for credential in credentials),
        "last_used_at": max(used, default=None),
        "created_at": row.created_at,
    }
