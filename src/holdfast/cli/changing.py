"""What every command that changes something has in common: its options, its plan, and what it says at the end."""

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Annotated, Any

import typer

from holdfast.cli.confirm import confirm
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import Installation, ReasonOption, YesOption
from holdfast.cli.output import say, utc_now, warning
from holdfast.control.actions import AnyAction
from holdfast.control.confirm import wait_in_force
from holdfast.control.errors import NotInForce
from holdfast.control.runner import Done, Pending
from holdfast.store.errors import CatalogError

_NO_WAIT = typer.Option("--no-wait", help="Do not wait until the nodes have confirmed the change.")
_TICKET = typer.Option(help="The ticket's number, for the record.", show_default=False)


@dataclass(frozen=True, slots=True)
class How:
    """What was said on the command line beside the change itself."""

    yes: bool
    reason: str
    ticket: str
    no_wait: bool
    not_in_force: list[str] = field(default_factory=list)
    """The nodes that had not confirmed the change in time."""


_OPTIONS = (
    inspect.Parameter("yes", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=YesOption),
    inspect.Parameter("reason", inspect.Parameter.KEYWORD_ONLY, default="", annotation=ReasonOption),
    inspect.Parameter("ticket", inspect.Parameter.KEYWORD_ONLY, default="", annotation=Annotated[str, _TICKET]),
    inspect.Parameter("no_wait", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, _NO_WAIT]),
)


def changing(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of all changes, in place of its parameter `how`."""

    @wraps(command)
    def run(**arguments: Any) -> None:
        said = {option.name: arguments.pop(option.name) for option in _OPTIONS}
        how = How(**said)
        command(**arguments, how=how)
        require_in_force(how.not_in_force)

    signature = inspect.signature(command)
    parameters = [
        option
        for parameter in signature.parameters.values()
        for option in (_OPTIONS if parameter.name == "how" else (parameter,))
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # Typer reads it
    return run


def carry_out(here: Installation, action: AnyAction, how: How, *, ask: bool = True, given: Any = None) -> Done | None:
    """Plan the action, have the plan confirmed, carry it out. None: it is so already, and nothing is done.

    Ends the command where the change waits for approval. `given`: a secret that no plan holds.
    """
    plan = here.control.plan(action, reason=how.reason, ticket=how.ticket)
    if not plan.effects:
        return None
    if ask:
        confirm(here.control.explain(plan), yes=how.yes)
    outcome = here.control.carry_out(plan, given)
    if isinstance(outcome, Pending):
        say_pending(here, outcome)
        raise typer.Exit(ExitCode.PENDING)
    if not how.no_wait:
        how.not_in_force.extend(say_in_force(here, action, outcome))
    return outcome


def carry_out_and_say(here: Installation, action: AnyAction, how: How, *, ask: bool = True) -> None:
    """`carry_out`, for a command that has nothing of its own to say."""
    say_done(here, action, carry_out(here, action, how, ask=ask))


def say_in_force(here: Installation, action: AnyAction, done: Done) -> list[str]:
    """Says where the change is in force, once it is everywhere or time is up; the nodes where it may not be."""
    if not action.in_snapshot or not done.effects:
        return []
    if done.version is None:
        warning("the catalog has no version, so no node can confirm the change; they read blocks all the same.")
        return []
    try:
        seen = wait_in_force(here.catalog, done.version, now=utc_now, monotonic=time.monotonic, sleep=time.sleep)
    except CatalogError as error:
        warning(f"the change is made; whether nodes have taken it over cannot be read: {error}")
        return []
    for line in seen.lines():
        say(line)
    return [node.name for node in seen.silent]


def require_in_force(silent: list[str]) -> None:
    """Raises NotInForce where a node has not confirmed the change."""
    if silent:
        raise NotInForce(
            f"the change is made, and not confirmed by {', '.join(silent)}",
            hint="`holdfast node list` shows when it is. If it must stop now: `systemctl stop holdfast` there.",
        )


def say_pending(here: Installation, pending: Pending) -> None:
    """What a change waits for, and until when."""
    plan = pending.plan
    say(f"NOTHING IS CHANGED YET: change {plan.id} needs the approval of {pending.missing}.")
    approve = here.command(f"change approve {plan.id} --key FILE")
    say(f"  - Another operator approves it here: `{approve}`")
    say("  - or signs its digest elsewhere, in the namespace change@holdfast, and gives you the signature:")
    say(f"    {plan.digest}")
    withdraw = here.command(f"change withdraw {plan.id}")
    say(f"  - It expires at {plan.expires:%Y-%m-%d %H:%M} UTC. `{withdraw}` ends it.")


def say_done(here: Installation, action: AnyAction, done: Done | None) -> None:
    """Where the change is recorded, and how it is undone; nothing if there was none."""
    if done is None:
        return
    if not done.recorded:
        warning("the catalog could not keep the record of this change: note down who did it, when and why.")
        return
    undo = action.undo(done.effects) if done.effects else None
    say(f"Recorded as change {done.id}." + (f" To undo it: `{here.command(undo)}`" if undo else ""))
