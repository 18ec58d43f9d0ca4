"""`holdfast emergency`: stop keys on this node without database, network or free disk space."""

import time
from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.confirm import confirm
from holdfast.cli.options import ConfigOption, JsonOption, ReasonOption, YesOption, read_configuration
from holdfast.cli.tables import fields
from holdfast.config.errors import ConfigurationError
from holdfast.control.actor import current_actor
from holdfast.control.errors import Invalid, NotInForce, Prerequisite
from holdfast.control.explanations import Explanation
from holdfast.control.plan import require_line
from holdfast.store.changes import require_keystore_name
from holdfast.store.local_stop import Stop, StopFile, TooLong, digest_of
from holdfast.store.records import new_change_id

app = typer.Typer(help="Stop keys on this node, whatever else fails: stop, lift, show.", no_args_is_help=True)

KeystoresOption = Annotated[
    list[str] | None, typer.Option("--keystore", help="This keystore. May be repeated.", show_default=False)
]
AllOption = Annotated[bool, typer.Option("--all", help="Every keystore.")]


@app.command()
def stop(
    *,
    keystore: KeystoresOption = None,
    all_: AllOption = False,
    reason: ReasonOption = "",
    yes: Annotated[bool, typer.Option("--yes", hidden=True)] = False,
    config: ConfigOption = None,
) -> None:
    """Refuse keys on this node within 0.3 s, also after a restart, until `holdfast emergency lift`. It never asks.

    It needs no database, no network and no free disk space. Once the catalog answers, the keystores are blocked there
    as well, and so on every node.
    """
    del yes  # what everybody types after a change is no reason to refuse a stop
    chosen = _chosen(keystore, all_=all_)
    for name in chosen or ():
        require_keystore_name(name)
    require_line("reason", reason)
    file, before = _file(config)
    if before is not None and before.keystores is None:
        chosen = None
    elif before is not None and before.keystores is not None and chosen is not None:
        chosen = tuple(dict.fromkeys((*before.keystores, *chosen)))
    new = Stop(id=new_change_id(), time=output.utc_now(), actor=current_actor().name, reason=reason, keystores=chosen)
    _write(file, new)
    _require_taken_over(file, new)
    output.say(
        f"Stopped {new.what()} on this node. It is blocked on every node once the catalog answers.\n"
        "To start again: `holdfast emergency lift` on this node, then `holdfast keystore unblock`."
    )


@app.command()
def lift(
    *, keystore: KeystoresOption = None, all_: AllOption = False, yes: YesOption = False, config: ConfigOption = None
) -> None:
    """End an emergency stop on this node. What the catalog blocks stays blocked."""
    chosen = _chosen(keystore, all_=all_)
    file, before = _file(config)
    if before is None:
        output.say("Nothing is stopped on this node.")
        return
    if chosen is not None and before.keystores is None:
        raise Invalid("every keystore is stopped, not single ones", hint="Lift the whole stop: --all.")
    left = tuple(name for name in before.keystores or () if chosen is not None and name not in chosen)
    after = (
        Stop(id=before.id, time=before.time, actor=before.actor, reason=before.reason, keystores=left)
        if left
        else None
    )
    confirm(
        Explanation(
            f"Lift the emergency stop on this node: {before.words()}.",
            (f"still stopped: {', '.join(left)}" if left else "nothing stays stopped by it",),
            ("What is blocked in the catalog stays blocked: `holdfast keystore unblock` ends that.",),
        ),
        yes=yes,
    )
    _write(file, after)
    _require_taken_over(file, after)
    output.say("Lifted. `holdfast keystore list` shows what the catalog still blocks.")


@app.command()
def show(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what is stopped on this node."""
    _, found = _file(config)
    row = {
        "stopped": found is not None,
        "keystores": None if found is None or found.keystores is None else list(found.keystores),
        "by": None if found is None else found.actor,
        "at": None if found is None else found.time,
        "reason": None if found is None else found.reason,
    }
    if as_json:
        output.json(row)
    elif found is None:
        output.say("Nothing is stopped on this node.")
    else:
        fields(row | {"keystores": found.what()})


_PATIENCE = 10.0
"""Seconds for workers that run: they look ten times a second."""
_LOOK = 0.02
_OTHERWISE = "To stop every key on this node without it: `systemctl stop holdfast`."


def _chosen(keystores: list[str] | None, *, all_: bool) -> tuple[str, ...] | None:
    if bool(keystores) is all_:
        raise typer.BadParameter("say --keystore NAME, or --all")
    return tuple(dict.fromkeys(keystores or ())) or None


def _file(config: ConfigOption) -> tuple[StopFile, Stop | None]:
    try:
        file = StopFile(read_configuration(config).catalog.stop_file)
    except ConfigurationError as error:
        raise Invalid(f"NOTHING WAS CHANGED: {error}", hint=_OTHERWISE) from None
    try:
        return file, file.read()
    except FileNotFoundError:
        return file, None
    except OSError as error:
        raise _useless(file, error) from None


def _require_taken_over(file: StopFile, stop: Stop | None) -> None:
    """Says how many workers have taken over what the file says, once all have. Raises NotInForce when time is up."""
    wanted, began = digest_of(stop), time.monotonic()
    while True:
        workers = file.workers()
        silent = sum(worker.digest != wanted for worker in workers)
        seconds = time.monotonic() - began
        if not silent:
            break
        if seconds >= _PATIENCE:
            raise NotInForce(
                f"{file.path} is written, and not confirmed by {silent} of {len(workers)} workers of this node within"
                f" {seconds:.0f} s",
                hint="To stop every key on this node now: `systemctl stop holdfast`.",
            )
        time.sleep(_LOOK)
    if not workers:
        output.say("No worker of this node runs: it is in force when the node starts.")
        return
    output.say(f"In force in {len(workers)} of {len(workers)} workers after {seconds:.2f} s.")
    if any(worker.unknown for worker in workers):
        output.warning(
            "this node does not know each of these keystores, and a name that it does not know stops nothing."
            " `holdfast keystore list` shows the names; --all stops every keystore."
        )


def _write(file: StopFile, stop: Stop | None) -> None:
    try:
        file.write(stop)
    except TooLong:
        raise Invalid("so many keystores do not fit", hint="Stop everything: --all. Nothing was changed.") from None
    except OSError as error:
        raise _useless(file, error) from None


def _useless(file: StopFile, error: OSError) -> Prerequisite:
    return Prerequisite(
        f"NOTHING WAS CHANGED: {file.path} cannot be used: {error.strerror}",
        hint=_OTHERWISE,
    )
