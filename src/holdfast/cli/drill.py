"""`holdfast key drill`: whether a standby HSM or a restored backup has every key."""

from typing import Annotated

import typer

from holdfast.cli import output
from holdfast.cli.changing import How, carry_out, changing, say_done
from holdfast.cli.exit_codes import ExitCode
from holdfast.cli.options import ConfigOption, JsonOption, installation
from holdfast.cli.tables import table
from holdfast.control.actions.drills import RecordDrill
from holdfast.control.drills import drill as drill_token
from holdfast.control.keys import hsm_settings
from holdfast.store.drills import OPENED


@changing
def drill(
    *,
    hsm: Annotated[str, typer.Option(help="Which [hsm.NAME] of the configuration.", show_default=False)],
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open the canary of every generation in an HSM: a standby, or one with a restored backup.

    Nothing is made there. What it has, and what not, is recorded.
    """
    with installation(config) as here:
        settings = hsm_settings(here.configuration, hsm)
        # Whoever may not record it need not look.
        here.control.plan(RecordDrill(hsm=hsm, token_serial="", results=()), reason=how.reason, ticket=how.ticket)
        keys = here.catalog.keys(None)
        found = drill_token(settings, keys)
        failed = [one for one in found.results if one.outcome != OPENED]
        if as_json:
            output.json(
                [
                    {
                        "keystore": one.keystore,
                        "external_key_id": one.key,
                        "generation": one.generation,
                        "outcome": one.outcome,
                        "detail": one.detail,
                    }
                    for one in found.results
                ]
            )
        else:
            table(
                ("KEYSTORE", "KEY", "GENERATION", "RESULT"),
                [
                    (
                        one.keystore,
                        one.key,
                        str(one.generation),
                        f"{one.outcome}{f': {one.detail}' if one.detail else ''}",
                    )
                    for one in found.results
                ],
                empty="There is no generation that an HSM could have.",
            )
        serial = found.token_serial or "none"
        count = len(found.results)
        output.say(f"[hsm.{hsm}], token serial {serial}, opens {count - len(failed)} of {count} generations.")
        if any(row.hsm == hsm for row in keys):
            output.say(f"[hsm.{hsm}] serves keys itself: for these this shows nothing about a standby or a backup.")
        action = RecordDrill(hsm=hsm, token_serial=found.token_serial, results=found.results)
        say_done(here, action, carry_out(here, action, how, ask=False))
    if failed:
        raise typer.Exit(ExitCode.INCOMPLETE)
