"""`holdfast keystore`: external key stores, each a path prefix with its own credentials and keys."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out, changing, say_done
from holdfast.cli.moments import parse_moment
from holdfast.cli.options import ConfigOption, Installation, JsonOption, installation
from holdfast.cli.tables import fields, table
from holdfast.cli.usage import RehearseOption, say_rehearsal
from holdfast.control.actions.keystores import (
    BlockKeystores,
    ChangeKeystore,
    CreateKeystore,
    DeleteKeystore,
    UnblockKeystores,
)
from holdfast.control.files import create_file
from holdfast.control.kms_connection import PLACEHOLDER, connection_of, credential_path, require_endpoint
from holdfast.control.lookup import find_keystore
from holdfast.store.changes import require_keystore_name, require_region
from holdfast.store.errors import Unavailable
from holdfast.store.memory import MemoryFile
from holdfast.store.reads import KeystoreRow
from holdfast.xks.types import UriPathPrefix

app = typer.Typer(help="External key stores: a path prefix, its credentials, its keys.", no_args_is_help=True)

NamesArgument = Annotated[list[str] | None, typer.Argument(help="The keystores' names.", show_default=False)]
NameArgument = Annotated[str, typer.Argument(help="The keystore's name.", show_default=False)]
AllOption = Annotated[bool, typer.Option("--all", help="Every keystore of the catalog.")]


@app.command()
@changing
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
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create a keystore without keys and credentials."""
    require_keystore_name(name)
    path = UriPathPrefix.parse(f"/{name}" if prefix is None else prefix)
    with installation(config) as here:
        action = CreateKeystore(keystore=name, prefix=path.value, region=region)
        done = carry_out(here, action, how, ask=False)
        row = find_keystore(here.catalog, name)
        if as_json:
            output.json(_as_json(row, here))
            return
        output.say(f"Created the keystore {name!r} at {row.prefix.xks_proxy_uri_path}.")
        create, issue = here.command(f"key create {name} KEY-ID"), here.command(f"credential issue {name}")
        output.say(f"Next: `{create}`, then `{issue}`.")
        say_done(here, action, done)


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
                _state(row),
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
@changing
def block(
    names: NamesArgument = None,
    *,
    all_: AllOption = False,
    until: Annotated[
        str | None, typer.Option(help="Only so long: a time, as in 2026-11-25T18:00Z.", show_default=False)
    ] = None,
    rehearsal: RehearseOption = False,
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a keystore, or all: proxies refuse each Encrypt and Decrypt, normally within a second."""
    if rehearsal:
        with installation(config, changes=False) as here:
            say_rehearsal(here, _named(names, all_=all_), as_json=as_json)
        return
    end = None if until is None else parse_moment(until, output.utc_now())
    action = BlockKeystores(names=_named(names, all_=all_), until=end)
    _set_blocked(action, how, config=config, as_json=as_json)


@app.command()
@changing
def unblock(
    names: NamesArgument = None,
    *,
    all_: AllOption = False,
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a block."""
    _set_blocked(UnblockKeystores(names=_named(names, all_=all_)), how, config=config, as_json=as_json)


@app.command("set")
@changing
def set_(
    name: NameArgument,
    *,
    prefix: Annotated[
        str | None, typer.Option(help="The path before /kms/xks/v1, such as /prod; '' for none.", show_default=False)
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(help="Accept requests signed for this AWS region only; '' for any.", show_default=False),
    ] = None,
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change a keystore's path prefix or region."""
    if prefix is None and region is None:
        raise typer.BadParameter("say what to change: --prefix, --region, or both")
    path = None if prefix is None else UriPathPrefix.parse(prefix).value
    require_region(region or None)
    with installation(config) as here:
        action = ChangeKeystore(keystore=name, prefix=path, region=region)
        done = carry_out(here, action, how)
        if as_json:
            output.json(_as_json(find_keystore(here.catalog, name), here))
        elif done is None:
            output.say(f"The keystore {name!r} is so already.")
        else:
            output.say(f"Changed the keystore {name!r}.")
        say_done(here, action, done)


@app.command()
@changing
def delete(name: NameArgument, *, how: How, config: ConfigOption = None) -> None:
    """Delete a keystore that has no keys and no live credentials."""
    with installation(config) as here:
        action = DeleteKeystore(keystore=name)
        done = carry_out(here, action, how)
        output.say(f"Deleted the keystore {name!r}.")
        say_done(here, action, done)


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
        typer.Option("--output", help="Write to this new file, readable by you alone.", show_default=False),
    ] = None,
    show_secret: Annotated[bool, typer.Option("--show-secret", help="Print it, secret included.")] = False,
    config: ConfigOption = None,
) -> None:
    """Write what the KMS console takes: the XKS proxy configuration file, with the secret access key."""
    if (output_file is None) is not show_secret:
        raise typer.BadParameter("it holds a secret: say --output FILE, or --show-secret to print it")
    with installation(config, changes=False) as here:
        url = PLACEHOLDER if endpoint is None else require_endpoint(endpoint)
        connection = connection_of(here.catalog, name, url, access_key_id=access_key_id)
    output.say(f"The credential {connection.credential[0]} of the keystore {name!r}.")
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
    output.say("If KMS has this key store already, `update-custom-key-store` takes the place of `create-`:")
    output.data(connection.aws_cli_update_line(credential_path(output_file)))


def _named(names: list[str] | None, *, all_: bool) -> tuple[str, ...] | None:
    """The keystores to block or unblock; None: all."""
    if bool(names) is all_:
        raise typer.BadParameter("name keystores, or say --all; `holdfast keystore list` shows them")
    return tuple(dict.fromkeys(names or ())) or None


def _set_blocked(action: BlockKeystores | UnblockKeystores, how: How, *, config: Path | None, as_json: bool) -> None:
    blocks = isinstance(action, BlockKeystores)
    with installation(config) as here:
        try:
            done = carry_out(here, action, how)
        except Unavailable as error:
            if not blocks:
                raise
            raise Unavailable(
                f"NOTHING IS BLOCKED: {error.message}. To stop the keys without the catalog:"
                " `holdfast emergency stop --all` on each machine, or `systemctl stop holdfast`"
            ) from None
        changed = {effect.subject.removeprefix("keystore ") for effect in (() if done is None else done.effects)}
        names = [row.name for row in here.catalog.keystores()] if action.names is None else action.names
        if done is not None and not blocks:
            _say_doubt(here)
        word = "blocked in the catalog" if blocks else "open in the catalog"
        if as_json:
            output.json([{"name": name, "blocked": blocks, "changed": name in changed} for name in names])
        else:
            output.say("\n".join(f"{name} is {word}{'' if name in changed else ' already'}." for name in names))
        say_done(here, action, done)


def _say_doubt(here: Installation) -> None:
    """An unblock changes nothing on a machine that does not believe the catalog."""
    with suppress(Unavailable):  # doctor and serve say that
        remembered = MemoryFile(here.configuration.catalog.state_file).read()
        if remembered is not None and remembered.doubt is not None:
            output.warning(
                f"the proxies of this machine do not believe the catalog ({remembered.doubt}): what was blocked stays"
                " blocked there until `holdfast catalog accept`."
            )


def _state(row: dict[str, Any]) -> str:
    if not row["blocked"]:
        return "open"
    if row["blocked_until"] is None:
        return "BLOCKED"
    over = output.utc_now() >= row["blocked_until"]
    return "open" if over else f"BLOCKED until {row['blocked_until']:%Y-%m-%d %H:%M} UTC"


def _as_json(row: KeystoreRow, here: Installation) -> dict[str, Any]:
    credentials = here.catalog.credentials(row.name)
    used = [credential.last_used_at for credential in credentials if credential.last_used_at]
    return {
        "name": row.name,
        "xks_proxy_uri_path": row.prefix.xks_proxy_uri_path,
        "region": row.region,
        "blocked": row.blocked,
        "blocked_until": row.blocked_until if row.blocked else None,
        "keys": len({key.external_key_id for key in here.catalog.keys(row.name)}),
        "live_credentials": sum(credential.retired_at is None for credential in credentials),
        "last_used_at": max(used, default=None),
        "created_at": row.created_at,
    }
