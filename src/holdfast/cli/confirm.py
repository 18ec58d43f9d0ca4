"""A change to something that exists is shown as a plan first, then asked for."""

import sys

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
