"""External keys: made in the HSM, or registered when the HSM's own tool made them."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.admin.doctor.finding import Finding, Severity, worst
from holdfast.admin.doctor.keys import examine_key, examine_matches
from holdfast.admin.errors import Conflict, HsmRefused, NotFound
from holdfast.admin.lookup import find_keystore
from holdfast.catalog.errors import CatalogError
from holdfast.catalog.errors import NotFound as NotFoundInCatalog
from holdfast.catalog.snapshot import Takeover
from holdfast.catalog.store import Catalog
from holdfast.config.model import Configuration
from holdfast.config.secrets import resolve
from holdfast.ekm.pkcs11.inspect import FoundKey, Inspector
from holdfast.ekm.port import KeyLocator
from holdfast.ekm.settings import HsmSettings
from holdfast.xks.types import ExternalKeyId

CKA_ID_BYTES = 16
"""Of a key made here: random, so that it stays unique also where a label does not."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """An external key to be, and where it lies: the HSM's name in the configuration and the CKA_LABEL there."""

    keystore: str
    external_key_id: ExternalKeyId
    hsm: str
    label: str


def create_key(catalog: Catalog, settings: HsmSettings, new: NewKey) -> FoundKey:
    """Makes an AES-256 key in the HSM and registers it; or does neither. Raises EkmFault, CatalogError."""
    _refuse_taken(catalog, new)
    with Inspector(settings) as inspector:
        made = inspector.generate_aes_256(new.label, secrets.token_bytes(CKA_ID_BYTES))
        # Some modules keep no CKA_ID (nShield lists none): then the label alone finds the key.
        cka_id = made.id or None
        try:
            catalog.register_key(new.keystore, new.external_key_id, hsm=new.hsm, label=new.label, cka_id=cka_id)
        except BaseException:
            # Nobody has used it yet: a key that no catalog knows would only bar its label. But a connection that
            # broke during the commit, or Ctrl-C after it, leaves open whether the catalog knows it.
            if _certainly_not_registered(catalog, new):
                inspector.destroy_key(KeyLocator(new.label, cka_id))
            raise
    return made


def _certainly_not_registered(catalog: Catalog, new: NewKey) -> bool:
    try:
        return all(row.external_key_id != str(new.external_key_id) for row in catalog.keys(new.keystore))
    except NotFoundInCatalog:
        return True
    except CatalogError:
        return False


def register_key(
    catalog: Catalog,
    settings: HsmSettings,
    new: NewKey,
    *,
    cka_id: bytes | None = None,
    takeover: Takeover | None = None,
) -> list[Finding]:
    """Registers a key that the HSM has already; returns what is worth knowing about it.

    Raises HsmRefused unless exactly one key matches and KMS can use it, and it is not the health key.
    """
    _refuse_taken(catalog, new)
    if new.label == settings.health_key:
        raise HsmRefused(
            f"{new.label!r} is the health key of the HSM {new.hsm!r}: probes encrypt with it all the time, uncounted",
            hint="Spec, GetHealthStatus: a test key is no key of KMS. `holdfast key create` makes another one.",
        )
    with Inspector(settings) as inspector:
        found = inspector.find_keys(new.label, cka_id)
    findings = examine_found(f"key {new.external_key_id}", new.label, found)
    refusals = [finding for finding in findings if finding.severity is Severity.ERROR]
    if refusals:
        raise HsmRefused(
            "; ".join(finding.what for finding in refusals), hint=" ".join(finding.remedy for finding in refusals)
        )
    catalog.register_key(
        new.keystore, new.external_key_id, hsm=new.hsm, label=new.label, cka_id=cka_id, takeover=takeover
    )
    return [finding for finding in findings if worst([finding]) is not Severity.OK]


def examine_found(subject: str, label: str, found: Sequence[FoundKey]) -> list[Finding]:
    """Findings on what a locator found: that it is one key, and what that key is like."""
    findings = list(examine_matches(subject, label, found))
    if len(found) == 1:
        findings += examine_key(subject, found[0])
    return findings


def hsm_settings(configuration: Configuration, name: str | None) -> HsmSettings:
    """The settings of `[hsm.NAME]` with the PIN read; None means the only one. Raises NotFound."""
    known = ", ".join(configuration.hsms)
    if name is None:
        if len(configuration.hsms) > 1:
            raise NotFound(f"the configuration has several HSMs: {known}", hint="Say which one with --hsm.")
        name = next(iter(configuration.hsms))
    if name not in configuration.hsms:
        raise NotFound(f"the configuration has no [hsm.{name}]", hint=f"It has: {known}.")
    return resolve(configuration.hsms[name])


def _refuse_taken(catalog: Catalog, new: NewKey) -> None:
    # The catalog refuses it too, but only after the HSM has been asked to make a key.
    find_keystore(catalog, new.keystore)
    for row in catalog.keys(new.keystore):
        if row.external_key_id == str(new.external_key_id):
            raise Conflict(
                f"the keystore {new.keystore!r} has a key {new.external_key_id} already",
                hint="Choose another external key id; `holdfast key list` shows those in use.",
            )
