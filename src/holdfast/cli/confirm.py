"""A change to something that exists is shown as a plan first, then asked for."""

import sys

from holdfast.cli.options import Installation
from holdfast.cli.output import say
from holdfast.control.errors import Unconfirmed
from holdfast.control.explanations import Explanation


def confirm(plan: Explanation, *, yes: bool) -> None:
    """Shows the plan and returns if it may be applied. Raises Unconfirmed.

    `yes` is the --yes of the command line. Without it, only a person at a terminal can agree.
    """
    say(plan.title)
    for change in plan.changes:
        say(f"  - {change}")
    if plan.impact:
        say("What this means:")
    for line in plan.impact:
        say(f"  - {line}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise Unconfirmed(
            "nothing was changed: there is no terminal to ask at",
            hint="Read the plan above, then run the same command with --yes.",
        )
    print("Apply this plan? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Unconfirmed("nothing was changed: the plan was declined")


def say_not_confirmed(here: Installation, keystore: str, key: str) -> None:
    """Says what a stop has not shown: it is in the catalog, and no proxy was asked whether it has read it."""
    proof, limit = here.command(f"prove {keystore} {key}"), here.configuration.catalog.stale_limit_s
    say("Not confirmed: this command does not ask the proxies.")
    say(f"  - `{proof}` asks one; it must now fail with InvalidStateException.")
    say(f"  - One that cannot read the catalog serves for up to {limit:g} s more; `systemctl stop holdfast` ends it.")
