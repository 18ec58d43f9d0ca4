"""`holdfast key usage`, and what `--rehearse` says: who uses which key, as far as nodes have seen it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from holdfast.cli import output
from holdfast.cli.moments import parse_length
from holdfast.cli.options import ConfigOption, Installation, JsonOption, installation
from holdfast.cli.tables import table
from holdfast.control.errors import Conflict
from holdfast.control.explanations import moment
from holdfast.control.lookup import find_generations, find_keystore
from holdfast.control.reencrypt import Advice, advise
from holdfast.control.usage import (
    NO_PROOF,
    Affected,
    Rehearsal,
    Together,
    by_generation,
    limits,
    rehearse,
    together,
    unused,
)
from holdfast.store.reads import KeyRow
from holdfast.store.usage import Caller, KmsKeyUsage, Tracking, tracking_of, usage_of

RehearseOption = Annotated[
    bool, typer.Option("--rehearse", help="Change nothing: say which KMS keys, accounts and callers would stop.")
]
_SHOWN = 8
"""Callers that a person is shown of one KMS key; --json has all that are kept."""


def usage(
    keystore: Annotated[str | None, typer.Argument(help="Only this keystore's keys.", show_default=False)] = None,
    key: Annotated[str | None, typer.Argument(help="Only this key, in detail.", show_default=False)] = None,
    *,
    unused_: Annotated[
        str | None,
        typer.Option(
            "--unused", help="List what has not been used for so long, as 90d: keys, generations, credentials."
        ),
    ] = None,
    reencrypt: Annotated[
        bool, typer.Option("--reencrypt", help="Say how to bring what older generations hold to the active one.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who uses keys for what, and when they last did, in requests that were served here."""
    if unused_ is not None and (keystore is not None or reencrypt):
        raise typer.BadParameter("--unused looks at everything, and goes with no other option or name")
    if reencrypt and (keystore is None or key is None):
        raise typer.BadParameter("--reencrypt is for one key: name its keystore and the key")
    with installation(config, changes=False) as here:
        if unused_ is not None:
            _say_unused(here, unused_, as_json=as_json)
        elif keystore is not None and key is not None:
            (_say_advice if reencrypt else _say_key)(here, keystore, key, as_json=as_json)
        else:
            _say_overview(here, keystore, as_json=as_json)


def say_rehearsal(
    here: Installation, keystores: tuple[str, ...] | None, *, key: str | None = None, as_json: bool
) -> None:
    """What a block of these keystores (None: all), or disabling the key, would stop; nothing is changed."""
    with here.catalog.reading() as state:
        if key is not None and keystores is not None:
            find_generations(state, keystores[0], key)
        found = rehearse(state, keystores=keystores, external_key_id=key, now=output.utc_now())
    if as_json:
        output.json(_rehearsal_as_json(found))
        return
    output.say("REHEARSAL: nothing is changed.")
    if not found.affected:
        output.say("No use was seen that would stop.")
    else:
        accounts, services = found.accounts(), found.names("service")
        counted = (
            (len({one.kms_key_arn for one in found.affected}), "KMS key"),
            (len(accounts), "account"),
            (len(services), "service"),
            (len(found.names("principal")), "principal"),
        )
        words = ", ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, word in counted)
        output.say(f"This would stop: {words}.")
        for one in found.affected:
            _say_affected(one, found)
    if found.unseen:
        keys = ", ".join("/".join(place) for place in found.unseen[:_SHOWN])
        more = len(found.unseen) - _SHOWN
        output.say(f"Keys of which no use was seen: {keys}{f' and {more} more' if more > 0 else ''}.")
    _say_limits(found.tracking)
    output.say("Services that hold data keys in memory go on for a while: S3 bucket keys, attached EBS volumes.")


def _say_affected(one: Affected, found: Rehearsal) -> None:
    use, now = one.use, found.now
    output.data(one.kms_key_arn or "KMS keys that are not listed one by one")
    output.data(
        f"  through {one.keystore}/{one.external_key_id}; last used {moment(use.last_served, now)};"
        f" {_rate(use, found.tracking, now)} a day"
    )
    _say_callers(use, now, indent="  ")


def _say_callers(use: Together, now: datetime, *, indent: str) -> None:
    for caller in use.callers[:_SHOWN]:
        output.data(f"{indent}{caller.kind} {caller.name}")
        output.data(f"{indent}  {caller.requests:,} requests, last {moment(caller.last_seen, now)}")
    if len(use.callers) > _SHOWN:
        output.data(f"{indent}and {len(use.callers) - _SHOWN} more: --json lists them")
    if not use.complete:
        output.data(f"{indent}and others: there were too many to keep all")


def _say_overview(here: Installation, keystore: str | None, *, as_json: bool) -> None:
    now = output.utc_now()
    with here.catalog.reading() as state:
        if keystore is not None:
            find_keystore(state, keystore)
        rows, of, tracking = state.keys(None), by_generation(usage_of(state, keystore)), tracking_of(state)
    rows = [row for row in rows if keystore in (None, row.keystore)]
    if as_json:
        output.json(_as_json(rows, of, tracking))
        return
    table(
        ("KEY", "GENERATION", "KMS KEYS", "A DAY", "LAST ENCRYPT", "LAST DECRYPT"),
        [
            (
                f"{row.keystore}/{row.external_key_id}",
                f"{row.generation} {row.state}",
                f"{len(use.kms_keys)}{'' if use.complete else '+'}",
                _rate(use, tracking, now),
                moment(use.last_encrypt, now),
                moment(use.last_decrypt, now),
            )
            for row in rows
            for use in (together(of[row.generation_id]),)
        ],
        empty="There is no key yet: `holdfast key create KEYSTORE KEY` makes one.",
    )
    if rows:
        _say_limits(tracking)


def _say_key(here: Installation, keystore: str, key: str, *, as_json: bool) -> None:
    now = output.utc_now()
    with here.catalog.reading() as state:
        rows = find_generations(state, keystore, key)
        of, tracking = by_generation(usage_of(state, keystore, key)), tracking_of(state)
    if as_json:
        output.json(_as_json(rows, of, tracking))
        return
    for row in rows:
        output.data(f"generation {row.generation}, {row.state} since {row.state_since:%Y-%m-%d %H:%M} UTC")
        if not of[row.generation_id]:
            output.data("  no use was seen")
        for one in of[row.generation_id]:
            use = together([one])
            output.data(f"  {one.kms_key_arn or 'KMS keys that are not listed one by one'}")
            output.data(f"    requests served a day: {_rate(use, tracking, now)}")
            for word, count, last in (
                ("encrypts", use.total.encrypts, use.last_encrypt),
                ("decrypts", use.total.decrypts, use.last_decrypt),
                ("refused", use.total.refusals, use.last_refusal),
            ):
                output.data(f"    {word}: {count:,}" + (f", last {moment(last, now)}" if last else ""))
            _say_callers(use, now, indent="    ")
    _say_limits(tracking)


def _say_unused(here: Installation, length: str, *, as_json: bool) -> None:
    since = output.utc_now() - parse_length(length)
    with here.catalog.reading() as state:
        found, tracking = unused(state, since=since), tracking_of(state)
    if as_json:
        output.json({"since": since, **_tracking_as_json(tracking), "unused": found})
        return
    table(
        ("KIND", "KEYSTORE", "NAME", "LAST USED"),
        [(one.kind, one.keystore, one.name, moment(one.last_used, output.utc_now())) for one in found],
        empty=f"Nothing that is older than {length} is unused.",
    )
    if tracking is not None and tracking.since > since:
        output.warning(f"use of keys is recorded only since {tracking.since:%Y-%m-%d %H:%M} UTC, less than {length}.")
    output.say(NO_PROOF)


def _say_advice(here: Installation, keystore: str, key: str, *, as_json: bool) -> None:
    with here.catalog.reading() as state:
        found = advise(state, keystore, key)
    if as_json:
        output.json(found)
        return
    if not found:
        raise Conflict(
            f"the key {key} has one generation in use: there is nothing to bring to another",
            hint="`holdfast key show` shows its generations.",
        )
    for advice in found:
        _say_one_advice(advice)
    output.say("Each call is one Decrypt and one Encrypt here. Services do their own: ReEncrypt does not reach them.")
    output.say(NO_PROOF)


def _say_one_advice(advice: Advice) -> None:
    output.data(f"generation {advice.generation}, {advice.state}: at most {advice.at_most:,} ReEncrypt calls")
    if not advice.kms_keys:
        output.data("  no KMS key was seen that holds on it")
    for one in advice.kms_keys:
        output.data(f"  {one.kms_key_arn}")
        output.data(f"    {one.encrypts:,} encrypts and {one.decrypts:,} decrypts were seen")
        for line in one.commands:
            output.data(f"    {line}")


def _say_limits(tracking: Tracking | None) -> None:
    for line in limits(tracking):
        output.say(line)


def _rate(use: Together, tracking: Tracking | None, now: datetime) -> str:
    rate = use.per_day(tracking, now)
    return f"{rate:,.0f}" if rate >= 1 or not rate else "< 1"


def _rehearsal_as_json(found: Rehearsal) -> dict[str, Any]:
    return {
        "changed": False,
        **_tracking_as_json(found.tracking),
        "accounts": found.accounts(),
        "services": found.names("service"),
        "principals": found.names("principal"),
        "kms_keys": [
            {
                "kms_key_arn": one.kms_key_arn,
                "account": one.account,
                "keystore": one.keystore,
                "external_key_id": one.external_key_id,
                "last_used_at": one.use.last_served,
                "requests_per_day": round(one.use.per_day(found.tracking, found.now), 2),
                "callers": list(map(_caller_as_json, one.use.callers)),
                "complete": one.use.complete,
            }
            for one in found.affected
        ],
        "keys_without_use": [{"keystore": keystore, "external_key_id": key} for keystore, key in found.unseen],
    }


def _as_json(rows: list[KeyRow], of: Mapping[int, list[KmsKeyUsage]], tracking: Tracking | None) -> dict[str, Any]:
    return {
        **_tracking_as_json(tracking),
        "generations": [
            {
                "keystore": row.keystore,
                "external_key_id": row.external_key_id,
                "generation": row.generation,
                "state": row.state,
                "kms_keys": [_usage_as_json(one) for one in of[row.generation_id]],
            }
            for row in rows
        ],
    }


def _usage_as_json(one: KmsKeyUsage) -> dict[str, Any]:
    return {
        "kms_key_arn": one.kms_key_arn or None,
        **{
            f"{what}s": {
                "count": getattr(one.total, f"{what}s"),
                "first_at": getattr(one, f"first_{what}"),
                "last_at": getattr(one, f"last_{what}"),
            }
            for what in ("encrypt", "decrypt", "refusal")
        },
        "days": {f"{day}": counts for day, counts in one.days.items()},
        "callers": list(map(_caller_as_json, one.callers)),
        "callers_left_out": one.callers_left_out,
    }


def _caller_as_json(caller: Caller) -> dict[str, Any]:
    return {
        "kind": caller.kind,
        "name": caller.name,
        "requests": caller.requests,
        "first_seen": caller.first_seen,
        "last_seen": caller.last_seen,
    }


def _tracking_as_json(tracking: Tracking | None) -> dict[str, Any]:
    if tracking is None:
        return {"recorded_since": None, "requests_lost": None}
    return {"recorded_since": tracking.since, "requests_lost": tracking.lost}
