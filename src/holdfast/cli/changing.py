"""What every command that changes something has in common: its options, its plan, and what it says at the end."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any

import typer

from holdfast.cli.confirm import confirm
from holdfast.cli.options import Installation, YesOption
from holdfast.cli.output import say, warning
from holdfast.control.actions import AnyAction
from holdfast.control.runner import Done

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


def carry_out(here: Installation, action: AnyAction, how: How, *, ask: bool = True) -> Done | None:
    """Plan the action, have the plan confirmed, carry it out. None: it is so already, and nothing is done."""
    plan = here.control.plan(action, reason=how.reason, ticket=how.ticket)
    if not plan.effects:
        return None
    if ask:
        confirm(here.control.explain(plan), yes=how.yes)
    return here.control.carry_out(plan)


def say_done(here: Installation, action: AnyAction, done: Done) -> None:
    """Where the change is recorded, and how it is undone."""
    if not done.recorded:
        warning("the catalog could not keep the record of this change: note down who did it, when and why.")
        return
    undo = action.undo(done.effects) if done.effects else None
    say(f"Recorded as change {done.id}." + (f" To undo it: `{here.command(undo)}`" if undo else ""))
