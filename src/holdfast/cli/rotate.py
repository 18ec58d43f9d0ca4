"""`holdfast key rotate`: a new HSM key behind an external key, in steps or at once."""

import time
from dataclasses import replace
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out_and_say, changing
from holdfast.cli.exit_codes import ExitCode, exit_code_of
from holdfast.cli.options import ConfigOption, Installation, KeyArgument, KeystoreArgument, installation
from holdfast.cli.tables import table
from holdfast.config.errors import ConfigurationError
from holdfast.control.actions.rotation import ActivateGeneration, CheckRotation, PrepareRotation, RollBack, coming
from holdfast.control.errors import AdminError, Conflict, Unconfirmed
from holdfast.control.keys import generates_keys, how_to_make, serving_settings
from holdfast.control.lookup import find_generations, find_key
from holdfast.control.schedule import DueKey, due_keys, waiting_rotation
from holdfast.hsm.faults import HsmFault
from holdfast.keys.readiness import Readiness
from holdfast.keys.states import GenerationState
from holdfast.store import rotation
from holdfast.store.errors import CatalogError


class RotateGroup(TyperGroup):
    """`key rotate KEYSTORE KEY` is `key rotate now KEYSTORE KEY`.

    A step has one argument more, so a keystore that is called like one is refused, and never taken for another.
    """

    default = "now"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments, with the default command where they name none."""
        known = not args or args[0] in (*self.commands, "--help")
        return super().parse_args(ctx, args if known else [self.default, *args])


app = typer.Typer(
    cls=RotateGroup,
    help="Put a new HSM key behind an external key: `key rotate KEYSTORE KEY` takes all steps, as `now` does.",
    no_args_is_help=True,
    subcommand_metavar="KEYSTORE KEY | COMMAND [ARGS]...",
)

HsmOption = Annotated[
    str | None,
    typer.Option(help="Which [hsm.NAME] gets the new key. Default: that of the key now.", show_default=False),
]
LabelOption = Annotated[
    str | None,
    typer.Option(help="CKA_LABEL of the new HSM key. Default: the first one's, and `.g2`.", show_default=False),
]
WaitOption = Annotated[float, typer.Option(help="Seconds to wait until every node has found the key.", min=0)]
_WAIT = 60.0
_LOOK = 0.1
_WAITING = (ExitCode.PENDING, ExitCode.INCOMPLETE)


@app.command()
@changing
def now(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    hsm: HsmOption = None,
    label: LabelOption = None,
    wait: WaitOption = _WAIT,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Do all steps: make the HSM key, wait until every node decrypts with it, and encrypt with it.

    Where the HSM's own tool makes keys (nShield) it stops after the first step, and says what to type.
    """
    with installation(config) as here:
        if _prepare(here, keystore, key, hsm=hsm, label=label, how=how):
            _wait_for_nodes(here, keystore, key, wait)
            _activate(here, keystore, key, how)


@app.command()
@changing
def due(*, wait: WaitOption = _WAIT, how: How, config: ConfigOption = None) -> None:
    """Rotate every key that is due, as a timer does; one that failed does not keep the others.

    Run again it goes on where it was: with steps that were approved meanwhile, or with nodes that were away. Keys
    that the HSM's own tool makes are named.
    """
    with installation(config) as here:
        with here.catalog.reading() as state:
            found = due_keys(state, here.configuration, output.utc_now())
        outcomes = [(one, *_rotate_due(here, one, wait, how)) for one in found]
    table(
        ("KEYSTORE", "KEY", "WHY", "RESULT"),
        [(one.row.keystore, one.row.external_key_id, one.why, said) for one, _, said in outcomes],
        empty="No key is due.",
    )
    # What failed is worse than what waits for others.
    codes = sorted((code for _, code, _ in outcomes if code), key=lambda code: code in _WAITING)
    if codes:
        raise typer.Exit(codes[0])


def _rotate_due(here: Installation, one: DueKey, wait: float, how: How) -> tuple[ExitCode, str]:
    """What became of one key. Raises Unconfirmed."""
    keystore, key = one.row.keystore, one.row.external_key_id
    if one.by_hand is not None:
        return ExitCode.INCOMPLETE, f"by hand: {one.by_hand}"
    asked = waiting_rotation(here.control, keystore, key)
    if asked is not None:
        return ExitCode.PENDING, f"change {asked} waits for approval"
    said = replace(how, reason=how.reason or f"rotation is due: {one.why}")
    try:
        _prepare(here, keystore, key, hsm=None, label=None, how=said)
        _wait_for_nodes(here, keystore, key, wait)
        _activate(here, keystore, key, said)
    except Unconfirmed:
        raise
    except typer.Exit:
        return ExitCode.PENDING, "waits for approval"
    except (AdminError, CatalogError, ConfigurationError, HsmFault) as failure:
        return exit_code_of(failure), f"not rotated: {failure}"
    return ExitCode.OK, "rotated"


@app.command()
@changing
def prepare(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    hsm: HsmOption = None,
    label: LabelOption = None,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Plan the next generation, and make its HSM key or say how it is made."""
    with installation(config) as here:
        if _prepare(here, keystore, key, hsm=hsm, label=label, how=how):
            output.say(f"Next: `{here.command(f'key rotate activate {keystore} {key}')}`")


@app.command()
@changing
def check(
    keystore: KeystoreArgument, key: KeyArgument, *, wait: WaitOption = _WAIT, how: How, config: ConfigOption = None
) -> None:
    """Look for the new HSM key, and have every node look for it; they initialise the library again if need be."""
    with installation(config) as here:
        carry_out_and_say(here, CheckRotation(keystore=keystore, key=key), how, ask=False)
        _wait_for_nodes(here, keystore, key, wait)
        output.say(f"Next: `{here.command(f'key rotate activate {keystore} {key}')}`")


@app.command()
@changing
def activate(
    keystore: KeystoreArgument, key: KeyArgument, *, wait: WaitOption = _WAIT, how: How, config: ConfigOption = None
) -> None:
    """Encrypt with the new generation, once every node has found it. The old one decrypts on."""
    with installation(config) as here:
        _wait_for_nodes(here, keystore, key, wait)
        _activate(here, keystore, key, how)


@app.command()
@changing
def rollback(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    generation: Annotated[
        int | None,
        typer.Option(help="Which one encrypts again. Default: the one before.", min=1, show_default=False),
    ] = None,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Encrypt with an older generation again. The newer one decrypts on."""
    with installation(config) as here:
        carry_out_and_say(here, RollBack(keystore=keystore, key=key, number=generation), how)


def _prepare(here: Installation, keystore: str, key: str, *, hsm: str | None, label: str | None, how: How) -> bool:
    """Whether the generation is ready; else the operator has something to type."""
    rows = find_generations(here.catalog, keystore, key)
    if any(row.state is GenerationState.READY for row in rows):
        output.say(f"Generation {coming(rows).generation} is ready already.")
        return True
    where = hsm or find_key(here.catalog, keystore, key).hsm
    settings = serving_settings(here.configuration, where)
    planned = next((row.label for row in rows if row.state is GenerationState.PLANNED), None)
    wanted = label or planned or f"{rows[0].label}.g{rows[-1].generation + 1}"
    carry_out_and_say(here, PrepareRotation(keystore=keystore, key=key, hsm=where, label=wanted), how, ask=False)
    if generates_keys(settings):
        carry_out_and_say(here, CheckRotation(keystore=keystore, key=key, make=True), how, ask=False)
        output.say(f"The HSM key {wanted!r} is in [hsm.{where}], and has its canary.")
        return True
    output.say(f"Make the HSM key {wanted!r} with nShield's tools:")
    for line in how_to_make(settings, wanted):
        output.say(f"  {line}")
    output.say(f"Then: `{here.command(f'key rotate check {keystore} {key}')}`")
    return False


def _activate(here: Installation, keystore: str, key: str, how: How) -> None:
    carry_out_and_say(here, ActivateGeneration(keystore=keystore, key=key), how)
    row = find_key(here.catalog, keystore, key)
    output.say(f"Generation {row.generation} of {key} encrypts from now on.")


def _wait_for_nodes(here: Installation, keystore: str, key: str, wait: float) -> None:
    """Until every live node has found the generation that is ready. Raises Conflict."""
    row = coming(find_generations(here.catalog, keystore, key))
    began = time.monotonic()
    while not (found := _readiness(here, row.generation_id)).is_complete:
        if time.monotonic() - began >= wait:
            raise Conflict(
                f"generation {row.generation} is {found.words()} after {wait:g} s: "
                + "; ".join(node.words() for node in found.missing),
                hint=f"When the key is there: `{here.command(f'key rotate check {keystore} {key}')}`. For a node that"
                f" is gone for good: `{here.command('node forget NODE')}`.",
            )
        time.sleep(_LOOK)
    output.say(f"Generation {row.generation} is {found.words()}, after {time.monotonic() - began:.1f} s.")


def _readiness(here: Installation, generation_id: int) -> Readiness:
    with here.catalog.reading() as state:
        return rotation.readiness(state, generation_id, output.utc_now())
