"""`holdfast key describe`: whose a key is, what it is for, how long it may be used."""

from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out, changing, say_done
from holdfast.cli.moments import parse_days
from holdfast.cli.options import ConfigOption, KeyArgument, KeystoreArgument, installation
from holdfast.control.actions.descriptions import DescribeKey
from holdfast.control.errors import Invalid
from holdfast.keys.description import BadDescription, parse_tag

_PERIOD = "as in 365d or 2y; none: no end"


@changing
def describe(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    owner: Annotated[
        str | None, typer.Option(help="Who answers for the data. An empty text removes it.", show_default=False)
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is for, in one line.", show_default=False)] = None,
    reference: Annotated[
        str | None, typer.Option(help="Its number elsewhere, such as in a register of keys.", show_default=False)
    ] = None,
    cryptoperiod: Annotated[
        str | None,
        typer.Option(help=f"For how long a generation should encrypt, {_PERIOD}.", show_default=False),
    ] = None,
    recipient_period: Annotated[
        str | None,
        typer.Option(help=f"For how long from then on its data should be needed, {_PERIOD}.", show_default=False),
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="NAME=VALUE. May be repeated.", show_default=False)] = None,
    untag: Annotated[
        list[str] | None, typer.Option(help="The name of a tag to remove. May be repeated.", show_default=False)
    ] = None,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Say whose a key is, and how long it may be used. `key show` shows it; no request depends on it."""
    try:
        tags: dict[str, str | None] = dict(map(parse_tag, tag or ()))
    except BadDescription as bad:
        raise Invalid(str(bad), hint="Write it as in --tag data=payments.") from None
    action = DescribeKey(
        keystore=keystore,
        key=key,
        owner=owner,
        description=description,
        external_reference=reference,
        originator_days=None if cryptoperiod is None else parse_days(cryptoperiod),
        recipient_days=None if recipient_period is None else parse_days(recipient_period),
        tags=tags | dict.fromkeys(untag or ()),
    )
    with installation(config) as here:
        done = carry_out(here, action, how, ask=False)
        output.say(f"{key} is described so already." if done is None else f"{key} is described anew.")
        say_done(here, action, done)
