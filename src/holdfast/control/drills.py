"""Looks into HSMs beside the one that serves: whether they have a key, or have it no more."""

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from holdfast.config.hsm import resolve
from holdfast.config.model import Configuration
from holdfast.control.errors import HsmRefused
from holdfast.hsm.faults import HsmFault
from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.hsm.settings import HsmSettings
from holdfast.keys.states import GenerationState
from holdfast.store.drills import OPENED, AttestedRow, DrilledRow
from holdfast.store.reads import KeyRow

NOT_FOUND = "not found"
ANOTHER_KEY = "another key"
NO_CANARY = "no canary"
FAULT = "fault"
WITHOUT_KEY = frozenset({GenerationState.PLANNED, GenerationState.DESTROYED})
"""Generations that no HSM needs to have."""


@dataclass(frozen=True, slots=True)
class Drilled:
    """What an HSM has of one generation: `outcome` is `opened`, or why its canary did not open."""

    keystore: str
    key: str
    generation: int
    outcome: str
    detail: str = ""

    @property
    def name(self) -> str:
        """The generation, in words."""
        return f"{self.keystore}/{self.key} generation {self.generation}"


@dataclass(frozen=True, slots=True)
class Drill:
    """What one token has. `token_serial`: empty where it has none."""

    hsm: str
    token_serial: str
    results: tuple[Drilled, ...]


def drill(settings: HsmSettings, generations: Sequence[KeyRow]) -> Drill:
    """Opens each generation's canary: one C_Decrypt each, and nothing is made. Raises HsmFault."""
    with Inspector(settings) as inspector:
        inspector.log_in()
        serial = inspector.token().serial
        found = tuple(_drilled(inspector, row) for row in generations if row.state not in WITHOUT_KEY)
    return Drill(settings.name, serial, found)


def _drilled(inspector: Inspector, row: KeyRow) -> Drilled:
    result = Drilled(row.keystore, row.external_key_id, row.generation, OPENED)
    if row.canary is None:
        return replace(result, outcome=NO_CANARY, detail="nothing is kept that would prove it")
    try:
        if inspector.keys_that_open(row.canary, row.label, row.cka_id):
            return result
        if row.cka_id is not None and inspector.keys_that_open(row.canary, row.label):
            return replace(result, detail="under another CKA_ID")
        if inspector.find_keys(row.label):
            return replace(result, outcome=ANOTHER_KEY, detail=f"{row.label!r} is not this key")
    except HsmFault as fault:
        return replace(result, outcome=FAULT, detail=fault.message[:255])
    return replace(result, outcome=NOT_FOUND, detail=f"no key {row.label!r}")


# ---- absence


def require_gone(
    configuration: Configuration,
    row: KeyRow,
    drilled: Collection[DrilledRow],
    stated: Collection[str],
    *,
    now: Callable[[], datetime],
) -> tuple[AttestedRow, ...]:
    """Looks for a generation's HSM key in every configured HSM; what was looked at, and what is only `stated` gone.

    `stated`: serial numbers of tokens, or names of HSMs without one, that do not exist any more. Raises HsmRefused
    where it is found, where an HSM cannot be asked, and where it was seen in a token that nobody has looked at.
    """
    looks = tuple(_looked(resolve(table), row, now=now) for table in configuration.hsms.values())
    return (*looks, *_stated(row, drilled, looks, stated))


def _looked(settings: HsmSettings, row: KeyRow, *, now: Callable[[], datetime]) -> AttestedRow:
    try:
        with Inspector(settings) as inspector:
            inspector.log_in()
            serial = inspector.token().serial
            there = _is_there(inspector, row, is_own=settings.name == row.hsm)
    except HsmFault as fault:
        raise HsmRefused(
            f"[hsm.{settings.name}] cannot be asked whether it has the HSM key {row.label!r}: {fault.message}",
            hint="Bring it back, and confirm again. If it does not exist any more, remove its table from the"
            " configuration, and name its token with --gone.",
        ) from None
    if there:
        raise HsmRefused(
            f"the HSM key {row.label!r} is still in [hsm.{settings.name}] (token serial {serial or 'none'})",
            hint=f"Delete it there, then confirm again: `{how_to_destroy(settings, row.label, row.cka_id)[0]}`",
        )
    return AttestedRow(row.generation_id, settings.name, serial, row.label, row.cka_id, now(), "")


def _is_there(inspector: Inspector, row: KeyRow, *, is_own: bool) -> bool:
    """Under whatever label. In another HSM a label alone says nothing, where the canary can be tried."""
    if row.canary is not None and inspector.keys_that_open(row.canary):
        return True
    decides = is_own or row.canary is None or row.cka_id is not None
    return decides and bool(inspector.find_keys(row.label, row.cka_id))


def _stated(
    row: KeyRow, drilled: Collection[DrilledRow], looks: Collection[AttestedRow], stated: Collection[str]
) -> Iterator[AttestedRow]:
    seen = {(row.hsm, row.token_serial or "")}
    seen |= {(one.hsm, one.token_serial) for one in drilled if one.opened_at is not None}
    serials, names = {look.token_serial for look in looks}, {look.hsm for look in looks}
    for hsm, serial in sorted(seen):
        if serial in serials if serial else hsm in names:
            continue
        token = serial or hsm
        if token not in stated:
            raise HsmRefused(
                f"the HSM key {row.label!r} was in the token {token} (HSM {hsm!r}), and no configured HSM has that"
                " token: nobody has looked whether it is still there",
                hint="Add the HSM to the configuration. If the token does not exist any more, say so:"
                f" --gone {token}. The record keeps it as your statement.",
            )
        yield AttestedRow(row.generation_id, hsm, serial, row.label, row.cka_id, None, "")


def how_to_destroy(settings: HsmSettings, label: str, cka_id: bytes | None) -> tuple[str, ...]:
    """The vendor's own command that deletes the key, and what it leaves. Not tried here but for SoftHSM."""
    quoted = shlex.quote(label)
    match settings.profile:
        case "nshield":
            return (
                f"nfkminfo -k pkcs11      # find the key {label!r}: its file is key_pkcs11_... in kmdata/local",
                "rm /opt/nfast/kmdata/local/key_pkcs11_IDENT      # on every host and in the remote file system",
                "# While the Security World exists, a copy of that file in a backup is the key: delete it there too.",
            )
        case "luna":
            return (
                f"cmu list -display=handle,label -label={quoted}      # its handle; then",
                "cmu delete -handle=HANDLE      # in an HA group it goes from every member that is reached",
            )
        case "cloudhsm":
            return (f"cloudhsm-cli key delete --filter attr.label={quoted}",)
        case _:
            identity = f" --id {cka_id.hex()}" if cka_id else ""
            token = "" if settings.token.label is None else f" --token-label {shlex.quote(settings.token.label)}"
            library = f"pkcs11-tool --module {shlex.quote(settings.library)}{token}"
            return (f"{library} --login --delete-object --type secrkey --label {quoted}{identity}",)
