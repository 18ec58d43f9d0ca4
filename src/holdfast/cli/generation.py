"""`holdfast key generation`: HSM keys behind an external key that do not encrypt any more."""

from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out_and_say, changing
from holdfast.cli.options import ConfigOption, KeyArgument, KeystoreArgument, installation
from holdfast.control.actions import AnyAction
from holdfast.control.actions.generations import (
    CompromiseGeneration,
    ConfirmDestruction,
    KeepGeneration,
    PlanDestruction,
    ResumeGeneration,
    SuspendGeneration,
)
from holdfast.control.drills import how_to_destroy

app = typer.Typer(help="HSM keys that a key has used before: out of use, or destroyed.", no_args_is_help=True)

NumberArgument = Annotated[int, typer.Argument(help="The generation's number.", min=1, show_default=False)]


@app.command()
@changing
def suspend(
    keystore: KeystoreArgument, key: KeyArgument, number: NumberArgument, *, how: How, config: ConfigOption = None
) -> None:
    """Refuse what a retired generation has encrypted, until it is resumed: who needs it, is heard of."""
    _take(SuspendGeneration(keystore=keystore, key=key, generation=number), how, config)


@app.command()
@changing
def resume(
    keystore: KeystoreArgument, key: KeyArgument, number: NumberArgument, *, how: How, config: ConfigOption = None
) -> None:
    """Decrypt with a suspended generation again."""
    _take(ResumeGeneration(keystore=keystore, key=key, generation=number), how, config)


@app.command()
@changing
def compromise(
    keystore: KeystoreArgument, key: KeyArgument, number: NumberArgument, *, how: How, config: ConfigOption = None
) -> None:
    """Record that others may have the HSM key: it never encrypts again. What it has encrypted opens."""
    _take(CompromiseGeneration(keystore=keystore, key=key, generation=number), how, config)


@app.command()
@changing
def destroy(
    keystore: KeystoreArgument,
    key: KeyArgument,
    number: NumberArgument,
    *,
    days: Annotated[int, typer.Option(help="The waiting period, 7 to 3650 days.")] = 30,
    despite_use: Annotated[
        bool, typer.Option("--despite-use", help="Also if somebody has asked for it within the last 30 days.")
    ] = False,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Begin the waiting period of a suspended generation. Nothing is deleted; `keep` undoes it."""
    with installation(config) as here:
        action = PlanDestruction(keystore=keystore, key=key, generation=number, days=days, despite_use=despite_use)
        carry_out_and_say(here, action, how)
        with here.catalog.reading() as state:
            row = action.row(state)
        output.say(
            f"When the waiting period is over, at {row.destroy_after:%Y-%m-%d %H:%M} UTC, delete it in the HSM:"
        )
        table = here.configuration.hsms.get(row.hsm)
        lines = () if table is None else how_to_destroy(table.settings, row.label, row.cka_id)
        for line in lines or (f"the key {row.label!r} in [hsm.{row.hsm}], which is not configured here",):
            output.say(f"  {line}")
        output.say(f"Then: `{here.command(f'key generation destroyed {keystore} {key} {number}')}`")


@app.command()
@changing
def keep(
    keystore: KeystoreArgument, key: KeyArgument, number: NumberArgument, *, how: How, config: ConfigOption = None
) -> None:
    """Do not destroy a generation after all: it is suspended again."""
    _take(KeepGeneration(keystore=keystore, key=key, generation=number), how, config)


@app.command()
@changing
def destroyed(
    keystore: KeystoreArgument,
    key: KeyArgument,
    number: NumberArgument,
    *,
    gone: Annotated[
        list[str] | None,
        typer.Option(
            help="The serial number of a token that had the key and does not exist any more. May be repeated.",
            show_default=False,
        ),
    ] = None,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Confirm, after the waiting period, that no HSM has the key any more: each is asked for it."""
    _take(ConfirmDestruction(keystore=keystore, key=key, generation=number, gone=tuple(gone or ())), how, config)


def _take(action: AnyAction, how: How, config: ConfigOption) -> None:
    with installation(config) as here:
        carry_out_and_say(here, action, how)
