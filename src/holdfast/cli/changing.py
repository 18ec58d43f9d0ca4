"""What every command that changes something has in common: its options, its plan, and what it says at the end."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import typer

from holdfast.cli.confirm import confirm
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import Installation, YesOption
from holdfast.cli.output import say, warning
from holdfast.control.actions import AnyAction
from holdfast.control.runner import Done, Pending

_REASON = typer.Option(help="Why, for the record.", show_default=False)
_TICKET = typer.Option(help="The ticket's number, for the record.", show_default=False)


@dataclass(frozen=True, slots=True)
class How:
    """What was said on the command line beside the change itself."""

    yes: bool
    reason: str
    ticket: str


_OPTIONS = (
    inspect.Parameter("yes", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=YesOption),
    inspect.Parameter("reason", inspect.Parameter.KEYWORD_ONLY, default="", annotation=Annotated[str, _REASON]),
    inspect.Parameter("ticket", inspect.Parameter.KEYWORD_ONLY, default="", annotation=Annotated[str, _TICKET]),
)


def changing(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of all changes, in place of its parameter `how`."""

    @wraps(command)
    def run(**arguments: Any) -> None:
        said = {option.name: arguments.pop(option.name) for option in _OPTIONS}
        command(**arguments, how=How(**said))

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
    return outcome


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
