"""`holdfast change`: who changed what, when and why; and what waits for approval."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from holdfast.cli import output
from holdfast.cli.changing import require_in_force, say_done, say_in_force
from holdfast.cli.confirm import confirm
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import ConfigOption, Installation, JsonOption, ReasonOption, YesOption, installation
from holdfast.cli.tables import fields, table
from holdfast.control.errors import AdminError, Conflict, Invalid, NotFound
from holdfast.control.explanations import Explanation
from holdfast.control.plan import Plan, in_words
from holdfast.control.runner import Done, Pending, Request
from holdfast.control.signatures import sign
from holdfast.reading import read_file
from holdfast.store.errors import CatalogError
from holdfast.store.records import ChangeRow

app = typer.Typer(help="Changes: who made them, when and why, and what waits for approval.", no_args_is_help=True)

ChangeArgument = Annotated[str, typer.Argument(help="The change's id, or its beginning.", show_default=False)]


@app.callback()
def change() -> None:
    """Changes: who made them, when and why, and what waits for approval."""


@app.command("list")
def list_(
    *,
    open_: Annotated[bool, typer.Option("--open", help="Only those that wait for approval.")] = False,
    latest: Annotated[int, typer.Option(help="So many, the latest.", min=1, max=100_000)] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the latest changes, the oldest first."""
    if open_:
        _list_open(config, as_json=as_json)
        return
    with installation(config, changes=False) as here:
        rows = here.catalog.changes(latest=latest)
    if as_json:
        output.json([_as_json(row) for row in rows])
        return
    table(
        ("TIME", "CHANGE", "WHO", "WHAT", "OUTCOME", "VERSION", "REASON"),
        [
            (
                f"{row.time:%Y-%m-%d %H:%M:%S}",
                row.id,
                "?" if row.change is None else row.change.actor.name,
                "its record is damaged" if row.change is None else f"{row.change.action}: {row.change.subject}",
                row.outcome,
                "-" if row.change is None else str(row.change.catalog_version or "-"),
                "-" if row.change is None else " ".join(filter(None, (row.change.ticket, row.change.reason))) or "-",
            )
            for row in rows
        ],
        empty="Nothing was changed yet.",
    )


@app.command()
def show(change: ChangeArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one change: what it altered, from what to what."""
    with installation(config, changes=False) as here:
        rows = here.catalog.changes(beginning=change)
        waiting = here.control.requests(change, undecided=True)
    names = {row.id for row in rows}
    if not names:
        raise NotFound(f"there is no change {change}", hint="`holdfast change list` shows the latest.")
    if len(names) > 1:
        raise Conflict(f"{len(names)} changes begin with {change}", hint="Give more of its id.")
    if as_json:
        output.json([_as_json(row) for row in rows])
        return
    for row in rows:
        _show(row)
    for request in waiting:
        _show_request(request)


@app.command()
def approve(
    change: ChangeArgument,
    *,
    key: Annotated[
        Path | None,
        typer.Option(
            help="Your SSH key: the private file, or the public one of a key that the agent has.", show_default=False
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(help="A signature over the digest that was made elsewhere; - for stdin.", show_default=False),
    ] = None,
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Approve a change of another person with your SSH key. The last approval that is needed applies it.

    What is signed is the plan's digest, in the namespace change@holdfast: `change show` says it.
    """
    if (key is None) is (signature is None):
        raise typer.BadParameter("say --key FILE to sign here, or --signature FILE for a signature made elsewhere")
    with installation(config) as here:
        plan = _waiting(here, change).plan
        confirm(_explained(here, plan), yes=yes)
        signed = _read(signature) if signature is not None else sign(plan.digest, key or Path())
        outcome = here.control.approve(plan.id, signed)
        if isinstance(outcome, Pending):
            so_far = ", ".join(_waiting(here, plan.id).approved_by)
            output.say(f"Approved. Nothing is changed yet: it needs {outcome.missing}; so far approved: {so_far}.")
            raise typer.Exit(ExitCode.PENDING)
        output.say("Approved, and applied.")
        _say_applied(here, plan, outcome)


@app.command()
def apply(change: ChangeArgument, *, config: ConfigOption = None) -> None:
    """Apply a change that has its approvals, after an attempt that failed, as when an HSM was away."""
    with installation(config) as here:
        plan = _waiting(here, change).plan
        done = here.control.apply(plan.id)
        output.say("Applied.")
        _say_applied(here, plan, done)


@app.command()
def reject(
    change: ChangeArgument,
    *,
    reason: ReasonOption = "",
    config: ConfigOption = None,
) -> None:
    """End a change that waits for approval."""
    with installation(config) as here:
        plan = _waiting(here, change).plan
        here.control.reject(plan.id, reason)
        output.say(f"Rejected the change {plan.id}. Nothing was changed.")


@app.command()
def withdraw(
    change: ChangeArgument,
    *,
    reason: ReasonOption = "",
    config: ConfigOption = None,
) -> None:
    """End a change that you have asked for."""
    with installation(config) as here:
        plan = _waiting(here, change).plan
        here.control.withdraw(plan.id, reason)
        output.say(f"Withdrew the change {plan.id}. Nothing was changed.")


def _say_applied(here: Installation, plan: Plan, done: Done) -> None:
    silent = say_in_force(here, plan.action, done)
    say_done(here, plan.action, done)
    require_in_force(silent)


def _read(signature: Path) -> str:
    try:
        return sys.stdin.read() if str(signature) == "-" else read_file(signature, pipe=True).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{signature} cannot be read: {error}", hint="It is a text that ssh-keygen wrote.") from None


def _waiting(here: Installation, beginning: str) -> Request:
    found = here.control.requests(beginning)
    if not found:
        raise NotFound(f"no change {beginning} waits for approval", hint="`holdfast change list --open` shows all.")
    if len(found) > 1:
        raise Conflict(f"{len(found)} changes begin with {beginning}", hint="Give more of its id.")
    return found[0]


def _explained(here: Installation, plan: Plan) -> Explanation:
    """What the approver reads: who asks, why, and exactly what would be altered."""
    try:
        impact = here.control.explain(plan).impact
    except (AdminError, CatalogError):
        impact = ()  # what it is about has changed; applying it will say how
    asked = f"{plan.actor.name} ({plan.actor.where}) asks, at {plan.time:%Y-%m-%d %H:%M} UTC"
    return Explanation(
        f"Change {plan.id}: {plan.action.name()}, {plan.action.subject()}",
        (
            asked,
            f"reason: {plan.reason or 'none'}{f', ticket {plan.ticket}' if plan.ticket else ''}",
            *in_words(plan.effects),
            f"digest {plan.digest}",
        ),
        impact,
    )


def _list_open(config: Path | None, *, as_json: bool) -> None:
    with installation(config, changes=False) as here:
        found = [request for request in here.control.requests(undecided=True) if request.outcome is None]
    if as_json:
        output.json([_request_as_json(request) for request in found])
        return
    table(
        ("CHANGE", "WHO", "WHAT", "NEEDS", "EXPIRES", "REASON"),
        [
            (
                one.plan.id,
                one.plan.actor.name,
                f"{one.plan.action.name()}: {one.plan.action.subject()}",
                one.missing or "nothing: apply it",
                f"{one.plan.expires:%Y-%m-%d %H:%M}",
                one.plan.reason or "-",
            )
            for one in found
        ],
        empty="No change waits for approval.",
    )


def _show_request(request: Request) -> None:
    fields(
        {
            "waits_for": request.missing or "nothing: apply it",
            "approved_by": ", ".join(request.approved_by) or None,
            "expires": request.plan.expires,
            "digest": request.plan.digest,
        }
    )


def _request_as_json(request: Request) -> dict[str, Any]:
    plan = request.plan
    return {
        "id": plan.id,
        "action": plan.action.name(),
        "subject": plan.action.subject(),
        "actor": plan.actor,
        "reason": plan.reason,
        "ticket": plan.ticket,
        "time": plan.time,
        "expires": plan.expires,
        "digest": plan.digest,
        "effects": plan.effects,
        "approved_by": request.approved_by,
        "missing": request.missing,
    }


def _show(row: ChangeRow) -> None:
    found = row.change
    if found is None:
        fields({"change": row.id, "time": row.time, "outcome": row.outcome, "record": "damaged"})
        return
    fields(
        {
            "change": row.id,
            "time": row.time,
            "outcome": row.outcome,
            "who": f"{found.actor.name} ({found.actor.known_by}, {found.actor.where})",
            "action": f"{found.action}: {found.subject}",
            "reason": found.reason or None,
            "ticket": found.ticket or None,
            "catalog_version": found.catalog_version,
            "plan": found.plan or None,
            "approved_by": ", ".join(approval.name for approval in found.approvals) or None,
            "in_the_audit_log": row.logged or "not yet",
        }
    )
    for line in in_words(found.effects):
        output.data(f"  - {line}")
    if found.effects_left_out:
        output.data(f"  - {found.effects_left_out} more effects, which the plan lists")


def _as_json(row: ChangeRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "time": row.time,
        "outcome": row.outcome,
        "logged": row.logged,
        "record": row.change,
    }
