"""External keys: made in the HSM, or registered when the HSM's own tool made them."""

import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from holdfast.config.hsm import resolve
from holdfast.config.model import Configuration
from holdfast.control.errors import Conflict, HsmRefused, NotFound
from holdfast.finding import Finding, Severity, worst
from holdfast.hsm.pkcs11.inspect import FoundKey, Inspector
from holdfast.hsm.pkcs11.profile import profile_of
from holdfast.hsm.settings import HsmSettings
from holdfast.keys.fitness import KEY_SPEC, examine_key, examine_matches
from holdfast.keys.proof import Proof
from holdfast.store.errors import CatalogError
from holdfast.store.reads import KeyRow
from holdfast.xks.types import ExternalKeyId

CKA_ID_BYTES = 16
"""Of a key made here: random, so that it stays unique also where a label does not."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new external key, and where it is: the HSM's name in the configuration and the CKA_LABEL there."""

    keystore: str
    external_key_id: ExternalKeyId
    hsm: str
    label: str


def take_proof(inspector: Inspector, found: FoundKey) -> Proof:
    """Seals a canary under the key: one encryption. Raises HsmFault."""
    usable = {"ENCRYPT", "DECRYPT"} <= set(found.attributes.key_usage) and found.attributes.key_spec == KEY_SPEC
    return Proof(
        cka_id=found.id or None,
        canary=inspector.seal_canary(found) if usable else None,
        token_serial=inspector.token().serial or None,
        attributes=found.attributes.attributes,
        check_value=inspector.check_value(found),
        world=inspector.settings.world,
    )


def seen(proof: Proof) -> dict[str, Any]:
    """What a record keeps of a proof: of the canary its digest."""
    return {
        "cka_id": None if proof.cka_id is None else proof.cka_id.hex(),
        "token_serial": proof.token_serial,
        "canary_sha256": None if proof.canary is None else sha256(proof.canary).hexdigest(),
        "attributes": proof.attributes,
        "check_value": None if proof.check_value is None else proof.check_value.hex(),
        "world": proof.world,
    }


@contextmanager
def find_or_make(
    settings: HsmSettings, label: str, *, make: bool, is_recorded: Callable[[bytes | None], bool]
) -> Iterator[Proof]:
    """The proof of the token's one key with this label. One that is not there is made, if `make` is set.

    If the block fails, a key that was made here is destroyed again, unless the catalog has it (`is_recorded`, by its
    CKA_ID) or does not say. Raises HsmRefused, HsmFault.
    """
    if label == settings.health_key:
        raise HsmRefused(f"{label!r} is the health key of the HSM {settings.name!r}", hint="Choose another label.")
    with Inspector(settings) as inspector:
        found = inspector.find_keys(label)
        made: FoundKey | None = None
        if not found and make:
            made = inspector.generate_aes_256(label, secrets.token_bytes(CKA_ID_BYTES))
            found = [made]
        try:
            _refuse_unfit(examine_found(f"key {label}", label, found, allow_extractable=settings.allow_extractable))
            yield take_proof(inspector, found[0])
        except BaseException:
            with suppress(CatalogError):
                if made is not None and not is_recorded(made.id or None):
                    inspector.destroy_key(made)
            raise


def _refuse_unfit(findings: Iterable[Finding]) -> None:
    refusals = [finding for finding in findings if finding.severity is Severity.ERROR]
    if refusals:
        raise HsmRefused(
            "; ".join(finding.what for finding in refusals), hint=" ".join(finding.remedy for finding in refusals)
        )


def generates_keys(settings: HsmSettings) -> bool:
    """Whether Holdfast makes keys in this HSM; else a person does, with the vendor's tool."""
    return profile_of(settings).generates_keys


def how_to_make(settings: HsmSettings, label: str) -> tuple[str, ...]:
    """The commands that make the key with nShield's tools, on one host of the Security World."""
    token = settings.token.label or ""
    protect = "module" if not token or "accelerator" in token else "token"
    key = f"plainname={shlex.quote(label)} protect={protect} type=AES size=256"
    return (
        f"generatekey pkcs11 {key} recovery=yes nvram=no",
        "rfs-sync --commit        # on that host, where hosts share their keys through a remote file system",
        "rfs-sync --update        # on the host of every other node",
    )


def prove_key(
    settings: HsmSettings, new: NewKey, *, cka_id: bytes | None = None, for_tests: bool = False
) -> tuple[Proof, list[Finding]]:
    """The proof of a key that the HSM has already, and what is worth knowing about it.

    Raises HsmRefused unless exactly one key matches, KMS can use it, and it is not the health key. `for_tests`: also
    a key that may not encrypt or decrypt, as conformance tests need it.
    """
    if new.label == settings.health_key:
        raise HsmRefused(
            f"{new.label!r} is the health key of the HSM {new.hsm!r}: probes encrypt with it all the time, uncounted",
            hint="Spec, GetHealthStatus: the test key is not one of KMS. `holdfast key create` makes another one.",
        )
    with Inspector(settings) as inspector:
        found = inspector.find_keys(new.label, cka_id)
        findings = examine_found(
            f"key {new.external_key_id}", new.label, found, allow_extractable=settings.allow_extractable
        )
        refusals = [
            finding
            for finding in findings
            if finding.severity is Severity.ERROR and not (for_tests and finding.code == "key-usage")
        ]
        if refusals:
            raise HsmRefused(
                "; ".join(finding.what for finding in refusals),
                hint=" ".join(_advice(finding) for finding in refusals),
            )
        proof = take_proof(inspector, found[0])
    return proof, [finding for finding in findings if worst([finding]) is not Severity.OK]


def _advice(finding: Finding) -> str:
    if finding.code == "key-label-twice":
        return "Say which one with --id HEX, its CKA_ID."
    if finding.code == "key-usage":
        return f"{finding.remedy} For conformance tests alone, register it with --for-tests."
    return finding.remedy


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a key was found. `proven`: it opens the canary that was kept at registration. `proof` is a new one."""

    label: str
    proof: Proof
    proven: bool


def find_binding(
    settings: HsmSettings, row: KeyRow, *, label: str | None, cka_id: bytes | None, without_proof: bool
) -> Binding:
    """The one object of the token that is the key of `row`, where `label` and `cka_id` say, or anywhere.

    Raises HsmRefused, HsmFault.
    """
    with Inspector(settings) as inspector:
        if row.canary is None and not without_proof:
            raise HsmRefused(
                "no canary is kept for this key, so nothing proves that another object is the same key",
                hint="Name the object with --label or --id, and add --without-proof if you know that it is the key.",
            )
        if without_proof or row.canary is None:
            found = inspector.find_keys(label or row.label, cka_id)
        else:
            found = inspector.keys_that_open(row.canary, label or row.label, cka_id)
            if not found and label is None:
                found = inspector.keys_that_open(row.canary, None, cka_id)
        if len(found) != 1:
            raise _not_one(found, proven=not without_proof, named=label is not None or cka_id is not None)
        (key,) = found
        if len(inspector.find_keys(key.label, key.id or None)) != 1:
            raise HsmRefused(
                f"the key has the label {key.label!r} and {_cka_id(key)}, and so has another key of the token",
                hint="Give the other key another label or CKA_ID with the HSM's tool.",
            )
        _refuse_unfit(examine_key("key", key, allow_extractable=settings.allow_extractable))
        return Binding(key.label, take_proof(inspector, key), proven=row.canary is not None and not without_proof)


def _not_one(found: Sequence[FoundKey], *, proven: bool, named: bool) -> HsmRefused:
    if found:
        shown = ", ".join(f"{key.label!r} with {_cka_id(key)}" for key in found)
        return HsmRefused(f"{len(found)} keys of the token fit: {shown}", hint="Choose one with --label and --id.")
    if proven and named:
        return HsmRefused(
            "no key with this label and CKA_ID opens the canary of this key: it is another key, or there is none",
            hint="Leave out --label and --id to search the whole token for the key.",
        )
    if proven:
        return HsmRefused(
            "no key of the token opens the canary of this key: it is not on the token",
            hint="Restore it from the HSM's backup. `holdfast doctor` shows which token is looked at.",
        )
    return HsmRefused("no key of the token has this label and CKA_ID", hint="List them with the HSM's own tool.")


def _cka_id(key: FoundKey) -> str:
    return f"CKA_ID {key.id.hex()}" if key.id else "no CKA_ID"


def examine_found(
    subject: str, label: str, found: Sequence[FoundKey], *, allow_extractable: bool = False
) -> list[Finding]:
    """Findings on what a locator found: that it is one key, and what that key is like."""
    findings = list(examine_matches(subject, label, found))
    if len(found) == 1:
        findings += examine_key(subject, found[0], allow_extractable=allow_extractable)
    return findings


def hsm_settings(configuration: Configuration, name: str | None) -> HsmSettings:
    """The settings of `[hsm.NAME]` with the PIN read; None means the only one that serves. Raises NotFound."""
    known = ", ".join(configuration.hsms)
    if name is None:
        if len(configuration.serving) > 1:
            raise NotFound(f"the configuration has several HSMs: {known}", hint="Say which one with --hsm.")
        name = next(iter(configuration.serving))
    if name not in configuration.hsms:
        raise NotFound(f"the configuration has no [hsm.{name}]", hint=f"It has: {known}.")
    return resolve(configuration.hsms[name])


def serving_settings(configuration: Configuration, name: str | None) -> HsmSettings:
    """As `hsm_settings`, of an HSM that may get keys. Raises Conflict for a standby."""
    settings = hsm_settings(configuration, name)
    if settings.standby:
        raise Conflict(
            f"[hsm.{settings.name}] is a standby: no node would find a key there",
            hint=f"Name one that serves: {', '.join(configuration.serving)}.",
        )
    return settings
