"""`holdfast key`: external keys, each an AES-256 key inside an HSM."""

from typing import Annotated, Any

import typer

from holdfast.cli import output, rotate
from holdfast.cli.confirm import confirm, say_not_confirmed
from holdfast.cli.options import ConfigOption, Installation, JsonOption, YesOption, installation
from holdfast.cli.tables import fields, table
from holdfast.control.errors import Invalid
from holdfast.control.explanations import (
    Usage,
    explain_disable,
    explain_enable,
    explain_rebind,
    explain_release,
    explain_share,
    explain_unregister,
    explain_upgrade,
)
from holdfast.control.keys import NewKey, bind, create_key, find_binding, hsm_settings, register_key
from holdfast.control.lookup import find_generations, find_key, find_keystore
from holdfast.keys.model import Takeover
from holdfast.keys.states import GenerationState
from holdfast.store.reads import KeyRow
from holdfast.xks.aad import NEWEST_FORMAT
from holdfast.xks.types import ExternalKeyId, KeyStatus

app = typer.Typer(help="External keys: AES-256 keys inside an HSM.", no_args_is_help=True)
app.add_typer(rotate.app, name="rotate")

KeystoreArgument = Annotated[str, typer.Argument(help="The keystore's name.", show_default=False)]
KeyArgument = Annotated[str, typer.Argument(help="The external key id.", show_default=False)]
HsmOption = Annotated[
    str | None,
    typer.Option(help="Which [hsm.NAME] of the configuration. Default: the only one.", show_default=False),
]
LabelOption = Annotated[
    str | None, typer.Option(help="CKA_LABEL in the HSM. Default: the external key id.", show_default=False)
]


@app.command()
def create(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    hsm: HsmOption = None,
    label: LabelOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an AES-256 key in the HSM, sensitive and not extractable, and register it."""
    with installation(config) as here:
        settings = hsm_settings(here.configuration, hsm)
        new = NewKey(keystore, ExternalKeyId.parse(key), settings.name, label or key)
        create_key(here.catalog, settings, new)
        _say_added(here, new, "Made", as_json=as_json)


@app.command()
def register(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    hsm: HsmOption = None,
    label: LabelOption = None,
    key_id: Annotated[
        str | None,
        typer.Option("--id", help="CKA_ID in hexadecimal, where the label is not unique.", show_default=False),
    ] = None,
    aws_sample: Annotated[
        bool, typer.Option("--takeover-aws-sample", help="Also decrypt what AWS's sample proxy made with this key.")
    ] = False,
    for_tests: Annotated[
        bool,
        typer.Option("--for-tests", help="Also a key that may not encrypt or decrypt, for conformance tests."),
    ] = False,
    prior_encryptions: Annotated[
        int,
        typer.Option(
            help="How often the key may have encrypted before, elsewhere. NIST allows 2^32 in all.", min=0, max=2**32
        ),
    ] = 0,
    tag: Annotated[
        str | None,
        typer.Option(
            help="The key's tag in hexadecimal, if it was registered before: `unregister` shows it.",
            show_default=False,
        ),
    ] = None,
    share_with: Annotated[
        list[str] | None,
        typer.Option(help="A keystore that uses this HSM key already. May be repeated.", show_default=False),
    ] = None,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a key that the HSM's own tool made, after looking at it."""
    cka_id = None if key_id is None else _hexadecimal(key_id)
    known_tag = None if tag is None else _hexadecimal(tag)
    with installation(config) as here:
        settings = hsm_settings(here.configuration, hsm)
        new = NewKey(keystore, ExternalKeyId.parse(key), settings.name, label or key)
        takeover = Takeover() if aws_sample else None
        others = [find_keystore(here.catalog, name).name for name in share_with or ()]
        if others:
            confirm(explain_share(keystore, key, others), yes=yes)
        for finding in register_key(
            here.catalog,
            settings,
            new,
            cka_id=cka_id,
            takeover=takeover,
            for_tests=for_tests,
            prior_encryptions=prior_encryptions,
            share_with=others,
            tag=known_tag,
        ):
            output.warning(f"{finding.what}. {finding.why} {finding.remedy}".rstrip())
        _say_added(here, new, "Registered", as_json=as_json)


@app.command("list")
def list_(
    keystore: Annotated[str | None, typer.Argument(help="Only this keystore's.", show_default=False)] = None,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the external keys, as the catalog has them; the HSM is not asked."""
    with installation(config, changes=False) as here:
        rows = here.catalog.keys(keystore)
        totals = here.catalog.encryption_totals()
    if as_json:
        output.json([_as_json(row, totals) for row in rows])
        return
    table(
        ("KEYSTORE", "KEY", "STATUS", "GENERATION", "HSM", "LABEL", "ENCRYPTIONS"),
        [
            (
                row.keystore,
                row.external_key_id,
                _status(row),
                str(row.generation),
                row.hsm,
                row.label,
                f"<= {totals[row.generation_id]:,}",
            )
            for row in rows
        ],
        empty="There is no key yet: `holdfast key create KEYSTORE KEY` makes one.",
    )
    if rows:
        output.say("ENCRYPTIONS: an upper limit; proxies reserve some in advance. 2^32 are allowed.")


@app.command()
def show(
    keystore: KeystoreArgument, key: KeyArgument, *, config: ConfigOption = None, as_json: JsonOption = False
) -> None:
    """Show one external key, as the catalog has it."""
    with installation(config, changes=False) as here:
        active = find_key(here.catalog, keystore, key)
        totals = here.catalog.encryption_totals()
        row = _as_json(active, totals)
        generations = find_generations(here.catalog, keystore, key)
    if as_json:
        output.json(row | {"generations": [_generation_as_json(one, totals) for one in generations]})
        return
    fields(row)
    if len(generations) > 1:
        table(
            ("GENERATION", "STATE", "SINCE", "HSM", "LABEL", "ENCRYPTIONS"),
            [
                (
                    str(one.generation),
                    one.state,
                    f"{one.state_since:%Y-%m-%d %H:%M}",
                    one.hsm,
                    one.label,
                    f"<= {totals.get(one.generation_id, 0):,}",
                )
                for one in generations
            ],
            empty="",
        )


@app.command()
def rebind(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    label: Annotated[str | None, typer.Option(help="CKA_LABEL that the key has now.", show_default=False)] = None,
    key_id: Annotated[
        str | None, typer.Option("--id", help="CKA_ID that the key has now, in hexadecimal.", show_default=False)
    ] = None,
    without_proof: Annotated[
        bool, typer.Option("--without-proof", help="Bind an object that does not open the key's canary.")
    ] = False,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find a registered key again under another label or CKA_ID.

    The object must open the canary that was kept when the key was registered. Without --label and --id the whole
    token is searched.
    """
    cka_id = None if key_id is None else _hexadecimal(key_id)
    with installation(config) as here:
        row = find_key(here.catalog, keystore, key)
        settings = hsm_settings(here.configuration, row.hsm)
        found = find_binding(settings, row, label=label, cka_id=cka_id, without_proof=without_proof)
        confirm(explain_rebind(row, label=found.label, cka_id=found.proof.cka_id, proven=found.proven), yes=yes)
        bind(here.catalog, row, found)
        _show(here, keystore, key, f"{key} is bound to {found.label!r} in [hsm.{row.hsm}].", as_json=as_json)


@app.command()
def release(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a key encrypt again that was stopped, for an unsafe IV or a count that is not known."""
    with installation(config) as here:
        row = find_key(here.catalog, keystore, key)
        if row.stopped is None:
            _show(here, keystore, key, f"{key} is not stopped.", as_json=as_json)
            return
        confirm(explain_release(row), yes=yes)
        here.catalog.release_generation(row.generation_id)
        _show(here, keystore, key, f"{key} is released.", as_json=as_json)


def _show(here: Installation, keystore: str, key: str, sentence: str, *, as_json: bool) -> None:
    if as_json:
        output.json(_as_json(find_key(here.catalog, keystore, key), here.catalog.encryption_totals()))
    else:
        output.say(sentence)


@app.command()
def unregister(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Forget a disabled key. The HSM keeps it, the catalog forgets how often it has encrypted."""
    with installation(config) as here:
        rows = find_generations(here.catalog, keystore, key)
        first = rows[0].generation_id
        total = here.catalog.encryption_totals([first]).get(first, 0)
        if rows[0].status is KeyStatus.DISABLED:
            confirm(explain_unregister(rows, total), yes=yes)
        here.catalog.unregister_key(keystore, ExternalKeyId.parse(key))
        output.say(f"The keystore {keystore!r} has no key {key} any more.")


@app.command()
def upgrade(
    keystore: Annotated[
        str | None, typer.Argument(help="Only this keystore's keys. Default: all.", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Argument(help="Only this key.", show_default=False)] = None,
    *,
    yes: YesOption = False,
    config: ConfigOption = None,
) -> None:
    """Let keys make ciphertexts of the newest format, once no older Holdfast runs any more.

    Keys that are made or registered after an upgrade do so by themselves. Until then a key cannot rotate.
    """
    with installation(config) as here:
        if keystore is not None and key is not None:
            rows = [find_key(here.catalog, keystore, key)]
        else:
            rows = [row for row in here.catalog.keys(keystore) if row.state is GenerationState.ACTIVE]
        older = [row for row in rows if row.metadata_format < NEWEST_FORMAT]
        if not older:
            output.say(f"Every key makes ciphertexts of format {NEWEST_FORMAT} already.")
            return
        confirm(explain_upgrade(older), yes=yes)
        here.catalog.upgrade_keys([(row.keystore, row.external_key_id) for row in older])
        output.say(f"Keys that make ciphertexts of format {NEWEST_FORMAT} now: {len(older)}.")


@app.command()
def disable(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop one key: proxies refuse its Encrypt and Decrypt, normally within a second."""
    with installation(config) as here:
        _set_status(here, keystore, key, KeyStatus.DISABLED, yes=yes, as_json=as_json)


@app.command()
def enable(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    yes: YesOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a disabled key serve again."""
    with installation(config) as here:
        _set_status(here, keystore, key, KeyStatus.ENABLED, yes=yes, as_json=as_json)


def _set_status(here: Installation, keystore: str, key: str, status: KeyStatus, *, yes: bool, as_json: bool) -> None:
    row = find_key(here.catalog, keystore, key)
    changed = row.status is not status
    if changed:
        usage = Usage(here.catalog.credentials(None), here.catalog.keys(None), output.utc_now())
        confirm(explain_disable(row, usage) if status is KeyStatus.DISABLED else explain_enable(row, usage), yes=yes)
        here.catalog.set_key_status(keystore, ExternalKeyId.parse(key), status)
    if as_json:
        output.json({"keystore": keystore, "external_key_id": key, "status": status, "changed": changed})
    else:
        output.say(f"{key} is {status.lower()} in the catalog{'' if changed else ' already'}.")
        if changed and status is KeyStatus.DISABLED:
            say_not_confirmed(here, keystore, key)


def _say_added(here: Installation, new: NewKey, word: str, *, as_json: bool) -> None:
    row = find_key(here.catalog, new.keystore, str(new.external_key_id))
    if as_json:
        output.json(_as_json(row, here.catalog.encryption_totals()))
        return
    output.say(
        f"{word} the key {row.external_key_id} of the keystore {row.keystore!r}: {row.label!r} in [hsm.{row.hsm}]."
    )
    output.say("Running proxies serve it within a second. On nShield, run `systemctl reload holdfast` first.")


def _status(row: KeyRow) -> str:
    if row.state is not GenerationState.ACTIVE:
        return row.state
    return row.status.value if row.stopped is None else "STOPPED"


def _hexadecimal(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Invalid(f"{text!r} is not hexadecimal", hint="Write it as in 0a1b2c.") from None


def _generation_as_json(row: KeyRow, totals: dict[int, int]) -> dict[str, Any]:
    return {
        "generation": row.generation,
        "state": row.state,
        "state_since": row.state_since,
        "activated_at": row.activated_at,
        "compromised_at": row.compromised_at,
        "destroy_after": row.destroy_after,
        "hsm": row.hsm,
        "label": row.label,
        "cka_id": row.cka_id.hex() if row.cka_id else None,
        "encryptions_at_most": totals.get(row.generation_id, 0),
        "stopped": row.stopped,
        "has_canary": row.canary is not None,
        "token_serial": row.token_serial,
        "created_at": row.created_at,
    }


def _as_json(row: KeyRow, totals: dict[int, int]) -> dict[str, Any]:
    takeover = row.takeover
    return {
        "keystore": row.keystore,
        "external_key_id": row.external_key_id,
        "status": row.status,
        "generation": row.generation,
        "state": row.state,
        "hsm": row.hsm,
        "label": row.label,
        "cka_id": row.cka_id.hex() if row.cka_id else None,
        "tag": row.tag.hex(),
        "metadata_format": row.metadata_format,
        "takeover": None if takeover is None else "aws-sample",
        "encryptions_at_most": totals.get(row.generation_id, 0),
        "stopped": row.stopped,
        "has_canary": row.canary is not None,
        "token_serial": row.token_serial,
        "created_at": row.created_at,
    }
