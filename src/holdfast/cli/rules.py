"""`holdfast rules`: which changes need a reason or the approval of others, and what each role may do."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out, changing, say_done
from holdfast.cli.options import ConfigOption, JsonOption, installation
from holdfast.config.text import read_text
from holdfast.control.actions.operators import SetRules
from holdfast.control.authorization import AUTHORIZATION, shipped_policies
from holdfast.control.rules import APPROVAL, bank_rules
from holdfast.store.governance import rules_of

app = typer.Typer(help="Rules: what needs approval, and what each role may do.", no_args_is_help=True)

_NONE = "# No change needs a reason or an approval.\n"


@app.command()
def show(
    *,
    bank: Annotated[bool, typer.Option("--bank", help="Those for a bank that come with Holdfast.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the rules for approvals (TOML), then the policies for roles (Cedar)."""
    if bank:
        approval, authorization = bank_rules(), shipped_policies(bank=True)
    else:
        with installation(config, changes=False) as here, here.catalog.reading() as state:
            approval = rules_of(state, APPROVAL) or _NONE
            authorization = rules_of(state, AUTHORIZATION) or shipped_policies(bank=False)
    if as_json:
        output.json({"approval": approval, "authorization": authorization})
        return
    output.data(approval)
    output.data(authorization.rstrip())


@app.command("set")
@changing
def set_(
    *,
    approval: Annotated[
        Path | None, typer.Option(help="A TOML file: which changes need whose approval.", show_default=False)
    ] = None,
    authorization: Annotated[
        Path | None, typer.Option(help="A Cedar file: what each role may do.", show_default=False)
    ] = None,
    bank: Annotated[bool, typer.Option("--bank", help="Both, as they come with Holdfast for a bank.")] = False,
    none: Annotated[bool, typer.Option("--none", help="No rules, and the shipped policies.")] = False,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Put rules in force. That is a change like any other, by the rules that are in force until then."""
    if (approval is not None or authorization is not None) + bank + none != 1:
        raise typer.BadParameter("say --approval FILE, --authorization FILE or both; or --bank; or --none")
    if bank:
        action = SetRules(approval=bank_rules(), authorization=shipped_policies(bank=True))
    elif none:
        action = SetRules(approval="", authorization="")
    else:
        action = SetRules(
            approval=None if approval is None else read_text(approval, language="TOML", pipe=True),
            authorization=None if authorization is None else read_text(authorization, language="Cedar", pipe=True),
        )
    with installation(config) as here:
        done = carry_out(here, action, how)
        output.say("The rules are in force." if done else "These rules are in force already.")
        say_done(here, action, done)
