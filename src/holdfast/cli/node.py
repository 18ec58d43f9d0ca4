"""`holdfast node`: the nodes that share a catalog."""

from datetime import timedelta
from typing import Annotated, Any

import typer

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out_and_say, changing
from holdfast.cli.options import ConfigOption, JsonOption, installation
from holdfast.cli.tables import table
from holdfast.control.actions.nodes import ForgetNode
from holdfast.store.nodes import NodeRow

app = typer.Typer(help="Nodes: which run, what they serve; forget one that is gone.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Nodes: which run, what they serve; forget one that is gone."""


@app.command("list")
def list_(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the nodes: what each serves, and when it was last seen.

    A node that does not hear of the catalog serves what it last read until its lease ends, then blocks everything.
    """
    with installation(config, changes=False) as here:
        newest = here.catalog.version()
        rows = [_as_json(node, newest) for node in here.catalog.nodes()]
    if as_json:
        output.json(rows)
        return
    table(
        ("NODE", "SITE", "HOLDFAST", "CATALOG", "HSMS", "LAST SEEN", "LEASE", "STATE"),
        [
            (
                row["name"],
                row["site"] or "-",
                row["holdfast"],
                row["catalog"],
                ", ".join(f"{name} {status}" for name, status in row["hsms"].items()) or "-",
                f"{row['last_seen']:%Y-%m-%d %H:%M:%S}",
                f"{row['lease_s']:g} s",
                row["state"],
            )
            for row in rows
        ],
        empty="No node runs, nor has one run since yesterday: `holdfast serve` starts one.",
    )
    for row in rows:
        if row["holds_back"] is not None:
            output.say(f"{row['name']} holds back more than the catalog says: {row['holds_back']}.")


@app.command()
@changing
def forget(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its name, as `node list` shows it.")],
    *,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Wait no more for a node that ended without a word, as when its machine is gone."""
    with installation(config) as here:
        carry_out_and_say(here, ForgetNode(node=node), how)


def _as_json(node: NodeRow, newest: int) -> dict[str, Any]:
    behind = "unknown" if node.version is None else f"{node.version}, behind {newest}"
    return {
        "name": node.name,
        "site": node.site,
        "holdfast": node.holdfast,
        "workers": node.workers,
        "catalog_version": node.version,
        "catalog": f"{newest}, current" if node.serves(newest) else behind,
        "hsms": dict(node.hsms),
        "last_seen": node.seen,
        "lease_s": node.lease,
        "lease_ends_at_the_earliest": node.seen + timedelta(seconds=node.lease),
        "state": _state(node),
        "holds_back": node.holds_back,
    }


def _state(node: NodeRow) -> str:
    silent = output.utc_now() - node.seen
    if silent < _MISSED:
        return "runs"
    return "silent" if node.lives(output.utc_now()) else "gone"


_MISSED = timedelta(seconds=25)
"""Two heartbeats and a half."""
