"""Changes to external keys."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

from holdfast.audit.records import Effect
from holdfast.control.action import Action, Installation
from holdfast.control.errors import Conflict, HsmRefused
from holdfast.control.explanations import (
    Explanation,
    Usage,
    explain_disable,
    explain_enable,
    explain_rebind,
    explain_release,
    explain_share,
    explain_unregister,
    explain_upgrade,
)
from holdfast.control.keys import NewKey, hsm_settings, seen, take_proof
from holdfast.control.lookup import Lists, find_generations, find_key, find_keystore
from holdfast.hsm.pkcs11.inspect import Inspector
from holdfast.keys.model import Takeover
from holdfast.keys.proof import Proof
from holdfast.store.changes import Registration, require_registrable, require_unregistrable
from holdfast.store.errors import CatalogError
from holdfast.store.errors import NotFound as NotFoundInCatalog
from holdfast.store.reads import KeyRow, Reading
from holdfast.store.store import Catalog
from holdfast.store.transaction import Transaction
from holdfast.xks.aad import NEWEST_FORMAT
from holdfast.xks.types import ExternalKeyId, KeyStatus


class _Key(Action, frozen=True, kw_only=True):
    keystore: str
    external_key_id: str

    def subject(self) -> str:
        """The key's name."""
        return f"key {self.keystore}/{self.external_key_id}"

    def keystores(self) -> tuple[str, ...] | None:
        """The one that it is in."""
        return (self.keystore,)

    def row(self, state: Reading) -> KeyRow:
        """The active generation. Raises NotFound."""
        return find_key(state, self.keystore, self.external_key_id)

    @property
    def identity(self) -> ExternalKeyId:
        """The external key id."""
        return ExternalKeyId.parse(self.external_key_id)


class _NewKey(_Key, frozen=True, kw_only=True):
    hsm: str
    label: str

    def registration(self, proof: Proof, **more: Any) -> Registration:
        """What it is registered as."""
        return Registration(
            keystore=self.keystore,
            external_key_id=self.identity,
            hsm=self.hsm,
            label=self.label,
            proof=proof,
            **more,
        )


class CreateKey(_NewKey, frozen=True, kw_only=True, tag="key create"):
    """An AES-256 key is made in the HSM and registered, or neither.

    `cka_id` is asked for; the HSM may give the key another one (nShield does).
    """

    cka_id: bytes

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The key. Raises Conflict, CatalogError."""
        refuse_taken(state, self)
        require_registrable(state, self.registration(Proof(cka_id=self.cka_id)))
        made = {"status": "ENABLED", "hsm": self.hsm, "label": self.label}
        return (Effect(subject=self.subject(), after=made),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it is new)
        """Where it is made."""
        return Explanation(
            f"Make the key {self.external_key_id} of the keystore {self.keystore!r}:",
            (f"an AES-256 key with the label {self.label!r} in [hsm.{self.hsm}]",),
        )

    @contextmanager
    def prepared(self, installation: Installation, given: Any) -> Iterator[Proof]:  # noqa: ARG002 (nothing is)
        """Make the key in the HSM, and destroy it again unless it is registered. Raises HsmFault, HsmRefused."""
        with Inspector(hsm_settings(installation.configuration, self.hsm)) as inspector:
            if inspector.find_keys(self.label):
                raise HsmRefused(
                    f"the token has a secret key with the label {self.label!r} already",
                    hint=f"Choose another --label; or, to use that key: `holdfast key register {self.keystore}"
                    f" {self.external_key_id} --label {shlex.quote(self.label)}`.",
                )
            made = inspector.generate_aes_256(self.label, self.cka_id)
            try:
                yield take_proof(inspector, made)
            except BaseException:
                # It has not been used yet: a key that no catalog knows would only occupy its label. But a connection
                # that broke during the commit, or Ctrl-C after it, leaves open whether the catalog knows it.
                if _certainly_not_registered(installation.catalog, self):
                    inspector.destroy_key(made)
                raise

    def apply(self, transaction: Transaction, prepared: Any) -> None:
        """Register it with its proof, and count the canary's encryption."""
        transaction.register_key(self.registration(prepared))

    def evidence(self, prepared: Any) -> tuple[Effect, ...]:
        """What the HSM shows of the key that it has made."""
        return (Effect(subject=f"the HSM key of {self.subject()}", after=seen(prepared)),)


class RegisterKey(_NewKey, frozen=True, kw_only=True, tag="key register"):
    """A key that the HSM has already, with a proof of it. `earlier_tag`: of an earlier registration."""

    proof: Proof
    takeover: Takeover | None = None
    prior_encryptions: int = 0
    share_with: tuple[str, ...] = ()
    earlier_tag: bytes | None = None

    def whole(self) -> Registration:
        """What it is registered as."""
        return self.registration(
            self.proof,
            takeover=self.takeover,
            prior_encryptions=self.prior_encryptions,
            share_with=self.share_with,
            tag=self.earlier_tag,
        )

    def kinds(self) -> tuple[str, ...]:
        """Sharing an HSM key between keystores is a change of its own for rules."""
        return ("key register", "key share") if self.share_with else ("key register",)

    def keystores(self) -> tuple[str, ...] | None:
        """All that use the HSM key then."""
        return (self.keystore, *self.share_with)

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The key. Raises Conflict, CatalogError."""
        refuse_taken(state, self)
        require_registrable(state, self.whole())
        made = {
            "status": "ENABLED",
            "hsm": self.hsm,
            "label": self.label,
            **seen(self.proof),
            "takeover": None if self.takeover is None else "aws-sample",
            "prior_encryptions": self.prior_encryptions or None,
            "shared_with": list(self.share_with) or None,
        }
        return (Effect(subject=self.subject(), after=made),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it is new)
        """Whom it is shared with."""
        if self.share_with:
            return explain_share(self.keystore, self.external_key_id, self.share_with)
        return Explanation(
            f"Register the key {self.external_key_id} of the keystore {self.keystore!r}:",
            (f"the key with the label {self.label!r} in [hsm.{self.hsm}]",),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Register it with its proof, and count the canary's encryption."""
        transaction.register_key(self.whole())


class UnregisterKey(_Key, frozen=True, kw_only=True, tag="key unregister"):
    """A disabled key is forgotten with all its generations. The HSM keeps its keys."""

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The key and each generation. Raises NotFound, InUse."""
        rows = find_generations(state, self.keystore, self.external_key_id)
        require_unregistrable(state, self.keystore, self.identity)
        key = {"status": rows[0].status.value, "tag": rows[0].tag.hex()}
        return (
            Effect(subject=self.subject(), before=key),
            *(Effect(subject=f"{self.subject()} generation {row.generation}", before=_place(row)) for row in rows),
        )

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (a disabled key has no users)
        """What it would take to register it again."""
        rows = find_generations(state, self.keystore, self.external_key_id)
        first = rows[0].generation_id
        return explain_unregister(rows, state.encryption_totals([first]).get(first, 0))

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Remove its rows."""
        transaction.unregister_key(self.keystore, self.identity)


class DisableKey(_Key, frozen=True, kw_only=True, tag="key disable"):
    """Encrypt and Decrypt are refused for this key."""

    stops: ClassVar[bool] = True

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The status, unless it is disabled."""
        row = self.row(state)
        if row.status is KeyStatus.DISABLED:
            return ()
        return (Effect(subject=self.subject(), before=_status(row), after={"status": "DISABLED"}),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:
        """Who is reached."""
        return explain_disable(self.row(state), usage)

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Set the status."""
        transaction.set_key_status(self.keystore, self.identity, KeyStatus.DISABLED)

    def undo(self, effects: Sequence[Effect]) -> str | None:  # noqa: ARG002 (its name says it)
        """Enabling it."""
        return f"key enable {self.keystore} {self.external_key_id}"


class EnableKey(_Key, frozen=True, kw_only=True, tag="key enable"):
    """A key serves, until the time `until` if there is one."""

    until: datetime | None = None

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The status and its end."""
        row = self.row(state)
        before, after = _status(row), _enabled(self.until)
        return () if before == after else (Effect(subject=self.subject(), before=before, after=after),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:
        """Who is reached."""
        return explain_enable(self.row(state), usage, self.until)

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Set the status."""
        transaction.set_key_status(self.keystore, self.identity, KeyStatus.ENABLED, until=self.until)

    def undo(self, effects: Sequence[Effect]) -> str | None:  # noqa: ARG002 (its name says it)
        """Disabling it."""
        return f"key disable {self.keystore} {self.external_key_id}"


class BindKey(_Key, frozen=True, kw_only=True, tag="key rebind"):
    """The HSM key of the active generation is found by another label or CKA_ID.

    `proven`: it opened the canary that was kept; `proof` is a new one.
    """

    label: str
    proof: Proof
    proven: bool

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Where it was and is. Raises NotFound, Conflict."""
        row, proof = self.row(state), self.proof
        for other in state.keys(None):
            if (
                not self.proven
                and other.generation_id != row.generation_id
                and (other.hsm, other.label) == (row.hsm, self.label)
                and (other.cka_id is None or proof.cka_id is None or other.cka_id == proof.cka_id)
            ):
                raise Conflict(f"that key serves {other.keystore}/{other.external_key_id} already")
        after = {
            "hsm": row.hsm,
            "label": self.label,
            "cka_id": None if proof.cka_id is None else proof.cka_id.hex(),
            "proven": self.proven,
        }
        subject = f"{self.subject()} generation {row.generation}"
        return (Effect(subject=subject, before=_place(row), after=after),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it is the same key)
        """Where it was and is."""
        row = self.row(state)
        return explain_rebind(row, label=self.label, cka_id=self.proof.cka_id, proven=self.proven)

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Bind it, and count the canary's encryption."""
        generation, proof = self.row(transaction).generation_id, self.proof
        transaction.rebind_generation(generation, label=self.label, proof=proof)
        if proof.canary is not None:
            transaction.count_encryptions(generation, 1)
            if not self.proven:
                transaction.replace_canary(generation, proof.canary)


class ReleaseKey(_Key, frozen=True, kw_only=True, tag="key release"):
    """A key that a node has stopped encrypts again."""

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The stop, if there is one."""
        row = self.row(state)
        if row.stopped is None:
            return ()
        subject = f"{self.subject()} generation {row.generation}"
        return (Effect(subject=subject, before={"stopped": row.stopped}, after={"stopped": None}),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (the danger is another)
        """What it was stopped for."""
        return explain_release(self.row(state))

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """End the stop."""
        transaction.release_generation(self.row(transaction).generation_id)


class UpgradeKeys(Action, frozen=True, kw_only=True, tag="key upgrade"):
    """Keys make ciphertexts of the newest format from now on: all, those of a keystore, or one key."""

    keystore: str | None = None
    external_key_id: str | None = None

    def subject(self) -> str:
        """The key, the keystore, or all."""
        if self.keystore is None:
            return "every key"
        return f"key {self.keystore}/{self.external_key_id or '*'}"

    def keystores(self) -> tuple[str, ...] | None:
        """The one that is named, or all."""
        return None if self.keystore is None else (self.keystore,)

    def _older(self, state: Reading) -> list[KeyRow]:
        if self.keystore is not None and self.external_key_id is not None:
            rows = [find_key(state, self.keystore, self.external_key_id)]
        else:
            rows = [row for row in state.keys(self.keystore) if row.state is row.state.ACTIVE]
        return [row for row in rows if row.metadata_format < NEWEST_FORMAT]

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The formats of those that make an older one."""
        return tuple(
            Effect(
                subject=f"key {row.keystore}/{row.external_key_id}",
                before={"metadata_format": row.metadata_format},
                after={"metadata_format": NEWEST_FORMAT},
            )
            for row in self._older(state)
        )

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (they notice nothing)
        """Which keys."""
        return explain_upgrade(self._older(state))

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Set the format. Raises InUse while an older node lives."""
        transaction.upgrade_keys([(row.keystore, row.external_key_id) for row in self._older(transaction)])


def refuse_taken(state: Lists, new: CreateKey | RegisterKey | NewKey) -> None:
    """Raises NotFound, Conflict where the keystore cannot take this key: asked before the HSM does anything."""
    find_keystore(state, new.keystore)
    if any(row.external_key_id == str(new.external_key_id) for row in state.keys(new.keystore)):
        raise Conflict(
            f"the keystore {new.keystore!r} has a key {new.external_key_id} already",
            hint="Choose another external key id; `holdfast key list` shows those in use.",
        )


def _certainly_not_registered(catalog: Catalog, new: CreateKey) -> bool:
    try:
        return all(row.external_key_id != new.external_key_id for row in catalog.keys(new.keystore))
    except NotFoundInCatalog:
        return True
    except CatalogError:
        return False


def _place(row: KeyRow) -> dict[str, Any]:
    return {"hsm": row.hsm, "label": row.label, "cka_id": None if row.cka_id is None else row.cka_id.hex()}


def _status(row: KeyRow) -> dict[str, Any]:
    return _enabled(row.enabled_until) if row.status is KeyStatus.ENABLED else {"status": "DISABLED"}


def _enabled(until: datetime | None) -> dict[str, Any]:
    return {"status": "ENABLED"} | ({} if until is None else {"until": f"{until:%Y-%m-%dT%H:%M:%SZ}"})
