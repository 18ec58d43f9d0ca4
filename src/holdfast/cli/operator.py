"""`holdfast operator`: who may ask for changes and approve them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out, changing, say_done
from holdfast.cli.options import ConfigOption, JsonOption, installation
from holdfast.cli.tables import table
from holdfast.config.text import read_text
from holdfast.control.actions.operators import EnrolOperator, RemoveOperator
from holdfast.control.roles import Role
from holdfast.control.signatures import allowed_signer, parse_public_key
from holdfast.store.governance import OperatorRow, operators

app = typer.Typer(help="Operators: who may change and approve what.", no_args_is_help=True)

OperatorArgument = Annotated[str, typer.Argument(help="The name of the operating system's user.", show_default=False)]


@app.command()
@changing
def enrol(
    name: OperatorArgument,
    *,
    role: Annotated[list[Role], typer.Option(help="What the person is there for. May be repeated.")],
    key: Annotated[
        Path | None,
        typer.Option(help="The public SSH key (.pub) with which the person approves.", show_default=False),
    ] = None,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Enrol a person, or give one who is enrolled other roles or another key."""
    public_key = None if key is None else parse_public_key(read_text(key, language="an SSH key", pipe=True))
    with installation(config) as here:
        action = EnrolOperator(operator=name, roles=tuple(sorted(set(role))), public_key=public_key)
        done = carry_out(here, action, how)
        output.say(f"{name} is enrolled{'' if done else ' so already'}.")
        say_done(here, action, done)


@app.command()
@changing
def remove(name: OperatorArgument, *, how: How, config: ConfigOption = None) -> None:
    """Remove a person: no change and no approval of theirs counts any more."""
    with installation(config) as here:
        action = RemoveOperator(operator=name)
        done = carry_out(here, action, how)
        output.say(f"{name} is no operator any more.")
        say_done(here, action, done)


@app.command("list")
def list_(
    *,
    allowed_signers: Annotated[
        bool, typer.Option("--allowed-signers", help="As a file for `ssh-keygen -Y verify -f`.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the operators."""
    with installation(config, changes=False) as here, here.catalog.reading() as state:
        rows = operators(state)
    if allowed_signers:
        for row in rows:
            if row.public_key is not None:
                output.data(allowed_signer(row.name, row.public_key).rstrip())
        return
    if as_json:
        output.json([_as_json(row) for row in rows])
        return
    table(
        ("NAME", "ROLES", "KEY"),
        [(row.name, ", ".join(row.roles), row.public_key or "-") for row in rows],
        empty="Nobody is enrolled: whoever may write the catalog may do everything.",
    )


def _as_json(row: OperatorRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "roles": row.roles,
        "public_key": row.public_key,
        "enrolled_at": row.enrolled_at,
    }
