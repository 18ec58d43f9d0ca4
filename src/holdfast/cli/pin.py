"""`holdfast key pin` and `unpin`: which KMS keys an external key serves."""

from typing import Annotated

import typer

from holdfast.cli.changing import How, carry_out, changing, say_done
from holdfast.cli.options import ConfigOption, KeyArgument, KeystoreArgument, installation
from holdfast.cli.output import say
from holdfast.control.actions.pins import PinKey, UnpinKey
from holdfast.control.lookup import find_generations


@changing
def pin(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    kms_key: Annotated[
        list[str], typer.Option("--kms-key", help="The ARN of a KMS key. May be repeated.", show_default=False)
    ],
    how: How,
    config: ConfigOption = None,
) -> None:
    """Let a key serve these KMS keys only: others get AccessDeniedException."""
    _carry_out(PinKey(keystore=keystore, key=key, kms_keys=tuple(kms_key)), how, config)


@changing
def unpin(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    kms_key: Annotated[
        list[str] | None,
        typer.Option("--kms-key", help="Only this one, in addition. May be repeated.", show_default=False),
    ] = None,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Let a pinned key serve every KMS key again, or one more."""
    _carry_out(UnpinKey(keystore=keystore, key=key, kms_keys=tuple(kms_key or ())), how, config)


def _carry_out(action: PinKey | UnpinKey, how: How, config: ConfigOption) -> None:
    with installation(config) as here:
        done = carry_out(here, action, how)
        pinned = find_generations(here.catalog, action.keystore, action.key)[0].pinned_to
        already = " already" if done is None else ""
        say(f"{action.key} serves {' and '.join(pinned) + ' only' if pinned else 'every KMS key'}{already}.")
        say_done(here, action, done)
