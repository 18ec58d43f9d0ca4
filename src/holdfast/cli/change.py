"""`holdfast change`: who changed what, when and why."""

from typing import Annotated, Any

import typer

from holdfast.cli import output
from holdfast.cli.options import ConfigOption, JsonOption, installation
from holdfast.cli.tables import fields, table
from holdfast.control.errors import Conflict, NotFound
from holdfast.control.plan import in_words
from holdfast.store.records import ChangeRow

app = typer.Typer(help="Changes to the catalog: who made them, when and why.", no_args_is_help=True)

ChangeArgument = Annotated[str, typer.Argument(help="The change's id, or its beginning.", show_default=False)]


@app.callback()
def change() -> None:
    """Changes to the catalog: who made them, when and why."""


@app.command("list")
def list_(
    *,
    latest: Annotated[int, typer.Option(help="So many, the latest.", min=1, max=100_000)] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the latest changes, the oldest first."""
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
