"""`holdfast key`: external keys, each an AES-256 key inside an HSM."""

from collections.abc import Sequence
from secrets import token_bytes
from typing import Annotated

import typer

from holdfast.cli import generation, output, rotate
from holdfast.cli.changing import How, carry_out, changing, say_done
from holdfast.cli.describe import describe
from holdfast.cli.drill import drill
from holdfast.cli.key_rows import generation_row, in_words, key_row
from holdfast.cli.moments import parse_length
from holdfast.cli.options import ConfigOption, Installation, JsonOption, KeyArgument, KeystoreArgument, installation
from holdfast.cli.pin import pin, unpin
from holdfast.cli.tables import fields, table
from holdfast.cli.usage import RehearseOption, say_rehearsal, usage
from holdfast.control.actions.keys import (
    BindKey,
    CreateKey,
    DisableKey,
    EnableKey,
    RegisterKey,
    ReleaseKey,
    UnregisterKey,
    UpgradeKeys,
    refuse_taken,
)
from holdfast.control.errors import Invalid
from holdfast.control.keys import CKA_ID_BYTES, NewKey, find_binding, hsm_settings, prove_key, serving_settings
from holdfast.control.lookup import find_generations, find_key, find_keystore
from holdfast.control.schedule import DueKey, due_keys
from holdfast.keys.model import Takeover
from holdfast.keys.states import GenerationState
from holdfast.store.reads import KeyRow
from holdfast.xks.aad import NEWEST_FORMAT
from holdfast.xks.types import ExternalKeyId, KeyStatus

app = typer.Typer(help="External keys: AES-256 keys inside an HSM.", no_args_is_help=True)
app.add_typer(rotate.app, name="rotate")
app.add_typer(generation.app, name="generation")
app.command()(describe)
app.command()(usage)
app.command()(pin)
app.command()(unpin)
app.command()(drill)

HsmOption = Annotated[
    str | None,
    typer.Option(help="Which [hsm.NAME] of the configuration. Default: the only one.", show_default=False),
]
LabelOption = Annotated[
    str | None, typer.Option(help="CKA_LABEL in the HSM. Default: the external key id.", show_default=False)
]


@app.command()
@changing
def create(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    hsm: HsmOption = None,
    label: LabelOption = None,
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an AES-256 key in the HSM, sensitive and not extractable, and register it."""
    with installation(config) as here:
        settings = serving_settings(here.configuration, hsm)
        action = CreateKey(
            keystore=keystore,
            external_key_id=ExternalKeyId.parse(key).value,
            hsm=settings.name,
            label=label or key,
            cka_id=token_bytes(CKA_ID_BYTES),
        )
        done = carry_out(here, action, how, ask=False)
        _say_added(here, action, "Made", as_json=as_json)
        say_done(here, action, done)


@app.command()
@changing
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
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a key that the HSM's own tool made, after looking at it."""
    cka_id = None if key_id is None else _hexadecimal(key_id)
    known_tag = None if tag is None else _hexadecimal(tag)
    with installation(config) as here:
        settings = serving_settings(here.configuration, hsm)
        new = NewKey(keystore, ExternalKeyId.parse(key), settings.name, label or key)
        refuse_taken(here.catalog, new)
        others = tuple(find_keystore(here.catalog, name).name for name in share_with or ())
        proof, findings = prove_key(settings, new, cka_id=cka_id, for_tests=for_tests)
        action = RegisterKey(
            keystore=keystore,
            external_key_id=key,
            hsm=new.hsm,
            label=new.label,
            proof=proof,
            takeover=Takeover() if aws_sample else None,
            prior_encryptions=prior_encryptions,
            share_with=others,
            earlier_tag=known_tag,
        )
        done = carry_out(here, action, how, ask=bool(others))
        for finding in findings:
            output.warning(f"{finding.what}. {finding.why} {finding.remedy}".rstrip())
        _say_added(here, action, "Registered", as_json=as_json)
        say_done(here, action, done)


@app.command("list")
def list_(
    keystore: Annotated[str | None, typer.Argument(help="Only this keystore's.", show_default=False)] = None,
    *,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.", show_default=False)] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", help="Only with this tag, NAME or NAME=VALUE. May be repeated.", show_default=False),
    ] = None,
    due: Annotated[bool, typer.Option("--due", help="Only those that should rotate, and why.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the external keys, as the catalog has them; the HSM is not asked."""
    with installation(config, changes=False) as here:
        rows = [row for row in here.catalog.keys(keystore) if _is_wanted(row, owner, tags or [])]
        totals = here.catalog.encryption_totals()
        with here.catalog.reading() as state:
            why = due_keys(state, here.configuration, output.utc_now()) if due else []
    if due:
        late = {one.row.generation_id for one in why}
        rows = [row for row in rows if row.generation_id in late]
    if as_json:
        output.json([key_row(row, totals) for row in rows])
        return
    if due:
        shown = {row.generation_id for row in rows}
        _list_due([one for one in why if one.row.generation_id in shown])
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
        row = key_row(active, totals)
        generations = find_generations(here.catalog, keystore, key)
    if as_json:
        output.json(row | {"generations": [generation_row(one, totals) for one in generations]})
        return
    fields(in_words(row))
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
@changing
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
    how: How,
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
        action = BindKey(
            keystore=keystore, external_key_id=key, label=found.label, proof=found.proof, proven=found.proven
        )
        done = carry_out(here, action, how)
        _show(here, keystore, key, f"{key} is bound to {found.label!r} in [hsm.{row.hsm}].", as_json=as_json)
        say_done(here, action, done)


@app.command()
@changing
def release(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a key encrypt again that was stopped, for an unsafe IV or a count that is not known."""
    with installation(config) as here:
        action = ReleaseKey(keystore=keystore, external_key_id=key)
        done = carry_out(here, action, how)
        said = f"{key} is not stopped." if done is None else f"{key} is released."
        _show(here, keystore, key, said, as_json=as_json)
        say_done(here, action, done)


def _show(here: Installation, keystore: str, key: str, sentence: str, *, as_json: bool) -> None:
    if as_json:
        output.json(key_row(find_key(here.catalog, keystore, key), here.catalog.encryption_totals()))
    else:
        output.say(sentence)


@app.command()
@changing
def unregister(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Forget a disabled key. The HSM keeps it, the catalog forgets how often it has encrypted."""
    with installation(config) as here:
        action = UnregisterKey(keystore=keystore, external_key_id=key)
        done = carry_out(here, action, how)
        output.say(f"The keystore {keystore!r} has no key {key} any more.")
        say_done(here, action, done)


@app.command()
@changing
def upgrade(
    keystore: Annotated[
        str | None, typer.Argument(help="Only this keystore's keys. Default: all.", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Argument(help="Only this key.", show_default=False)] = None,
    *,
    how: How,
    config: ConfigOption = None,
) -> None:
    """Let keys make ciphertexts of the newest format, once no older Holdfast runs any more.

    Keys that are made or registered after an upgrade do so by themselves. Until then a key cannot rotate.
    """
    with installation(config) as here:
        action = UpgradeKeys(keystore=keystore, external_key_id=key)
        done = carry_out(here, action, how)
        if done is None:
            output.say(f"Every key makes ciphertexts of format {NEWEST_FORMAT} already.")
            return
        output.say(f"Keys that make ciphertexts of format {NEWEST_FORMAT} now: {len(done.effects)}.")
        say_done(here, action, done)


@app.command()
@changing
def disable(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    rehearsal: RehearseOption = False,
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop one key: proxies refuse its Encrypt and Decrypt, normally within a second."""
    with installation(config, changes=not rehearsal) as here:
        if rehearsal:
            say_rehearsal(here, (keystore,), key=key, as_json=as_json)
            return
        _set_status(here, DisableKey(keystore=keystore, external_key_id=key), how, as_json=as_json)


@app.command()
@changing
def enable(
    keystore: KeystoreArgument,
    key: KeyArgument,
    *,
    for_: Annotated[
        str | None, typer.Option("--for", help="Only so long, as in 45m, 2h, 3d.", show_default=False)
    ] = None,
    how: How,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a disabled key serve again."""
    with installation(config) as here:
        until = None if for_ is None else output.utc_now().replace(microsecond=0) + parse_length(for_)
        _set_status(here, EnableKey(keystore=keystore, external_key_id=key, until=until), how, as_json=as_json)


def _set_status(here: Installation, action: DisableKey | EnableKey, how: How, *, as_json: bool) -> None:
    keystore, key = action.keystore, action.external_key_id
    status = KeyStatus.DISABLED if isinstance(action, DisableKey) else KeyStatus.ENABLED
    done = carry_out(here, action, how)
    changed = done is not None
    if as_json:
        output.json({"keystore": keystore, "external_key_id": key, "status": status, "changed": changed})
    else:
        output.say(f"{key} is {status.lower()} in the catalog{'' if changed else ' already'}.")
    say_done(here, action, done)


def _say_added(here: Installation, new: CreateKey | RegisterKey, word: str, *, as_json: bool) -> None:
    row = find_key(here.catalog, new.keystore, new.external_key_id)
    if as_json:
        output.json(key_row(row, here.catalog.encryption_totals()))
        return
    output.say(
        f"{word} the key {row.external_key_id} of the keystore {row.keystore!r}: {row.label!r} in [hsm.{row.hsm}]."
    )
    output.say("Running proxies serve it within a second. On nShield, run `systemctl reload holdfast` first.")


def _list_due(found: Sequence[DueKey]) -> None:
    table(
        ("KEYSTORE", "KEY", "GENERATION", "WHY", "ROTATED BY"),
        [
            (
                one.row.keystore,
                one.row.external_key_id,
                str(one.row.generation),
                one.why,
                "key rotate due" if one.by_hand is None else f"hand: {one.by_hand}",
            )
            for one in found
        ],
        empty="No key is due.",
    )


def _is_wanted(row: KeyRow, owner: str | None, tags: Sequence[str]) -> bool:
    own = row.description.tags
    has = (tag in own or any(f"{name}={value}" == tag for name, value in own.items()) for tag in tags)
    return (owner is None or row.description.owner == owner) and all(has)


def _status(row: KeyRow) -> str:
    if row.state is not GenerationState.ACTIVE:
        return row.state
    if row.stopped is not None:
        return "STOPPED"
    if row.enabled_until is None:
        return row.status.value
    over = output.utc_now() >= row.enabled_until
    return "DISABLED" if over else f"{row.status} until {row.enabled_until:%Y-%m-%d %H:%M} UTC"


def _hexadecimal(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Invalid(f"{text!r} is not hexadecimal", hint="Write it as in 0a1b2c.") from None
