"""A catalog that tests change directly, a change each, without plan and actor."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from holdfast.audit.records import Actor, Change, Effect
from holdfast.keys.proof import Proof
from holdfast.store import store
from holdfast.store.changes import Registration
from holdfast.store.records import new_change_id
from holdfast.store.transaction import Transaction
from holdfast.store.transfer import Export
from holdfast.xks.types import AccessKeyId, ExternalKeyId, KeyStatus, SecretAccessKey, UriPathPrefix


class Catalog(store.Catalog):
    """`control` is the road of a change; what a test sets up beside it is recorded as such."""

    @contextmanager
    def change(self, *effects: Effect, needs_version: bool = True) -> Iterator[Transaction]:
        """A change of several parts."""
        identity = new_change_id()
        with self.changing(identity, needs_version=needs_version) as transaction:
            yield transaction
            actor = Actor(name="test", known_by="test")
            change = Change(
                time=self._now(),
                id=identity,
                action="set up",
                subject="a test",
                actor=actor,
                effects=effects,
                catalog_version=transaction.version(),
            )
            transaction.record(change, required=needs_version)

    def create_keystore(self, name: str, prefix: UriPathPrefix, *, region: str | None = None) -> None:
        """As `Transaction.create_keystore`."""
        with self.change() as transaction:
            transaction.create_keystore(name, prefix, region=region)

    def set_blocked(self, *names: str, blocked: bool, until: datetime | None = None) -> None:
        """As `Transaction.set_blocked`, for all in one transaction."""
        effects = [Effect(subject=f"keystore {name}", after={"blocked": blocked}) for name in names]
        with self.change(*effects, needs_version=not blocked) as transaction:
            for name in names:
                transaction.set_blocked(name, blocked=blocked, until=until)

    def change_keystore(self, name: str, *, prefix: UriPathPrefix | None = None, region: str | None = None) -> None:
        """As `Transaction.change_keystore`."""
        with self.change() as transaction:
            transaction.change_keystore(name, prefix=prefix, region=region)

    def remove_keystore(self, name: str) -> None:
        """As `Transaction.remove_keystore`."""
        with self.change() as transaction:
            transaction.remove_keystore(name)

    def issue_credential(self, keystore: str, credential: tuple[AccessKeyId, SecretAccessKey]) -> None:
        """As `Transaction.issue_credential`."""
        with self.change() as transaction:
            transaction.issue_credential(keystore, credential)

    def reference_credential(self, keystore: str, access_key_id: AccessKeyId, secret_ref: str) -> None:
        """As `Transaction.reference_credential`."""
        with self.change() as transaction:
            transaction.reference_credential(keystore, access_key_id, secret_ref)

    def retire_credential(self, access_key_id: AccessKeyId) -> None:
        """As `Transaction.retire_credential`."""
        with self.change() as transaction:
            transaction.retire_credential(access_key_id)

    def register_key(self, keystore: str, external_key_id: ExternalKeyId, **more: Any) -> None:
        """As `Transaction.register_key`; what belongs to the proof may be given beside it."""
        proof = Proof(**{name: more.pop(name) for name in ("cka_id", "token_serial", "canary") if name in more})
        new = Registration(keystore=keystore, external_key_id=external_key_id, proof=proof, **more)
        with self.change() as transaction:
            transaction.register_key(new)

    def unregister_key(self, keystore: str, external_key_id: ExternalKeyId) -> None:
        """As `Transaction.unregister_key`."""
        with self.change() as transaction:
            transaction.unregister_key(keystore, external_key_id)

    def upgrade_keys(self, key_ids: Collection[tuple[str, str]]) -> None:
        """As `Transaction.upgrade_keys`."""
        with self.change() as transaction:
            transaction.upgrade_keys(key_ids)

    def set_key_status(self, keystore: str, external_key_id: ExternalKeyId, status: KeyStatus, **more: Any) -> None:
        """As `Transaction.set_key_status`."""
        with self.change() as transaction:
            transaction.set_key_status(keystore, external_key_id, status, **more)

    def replace_canary(self, generation_id: int, canary: bytes | None) -> None:
        """As `Transaction.replace_canary`."""
        with self.change() as transaction:
            transaction.replace_canary(generation_id, canary)

    def release_generation(self, generation_id: int) -> None:
        """As `Transaction.release_generation`."""
        with self.change() as transaction:
            transaction.release_generation(generation_id)

    def rebind_generation(self, generation_id: int, *, label: str, cka_id: bytes | None) -> None:
        """As `Transaction.rebind_generation`."""
        with self.change() as transaction:
            transaction.rebind_generation(generation_id, label=label, proof=Proof(cka_id=cka_id))

    def import_(self, export: Export) -> int:
        """As `Transaction.import_`."""
        with self.change() as transaction:
            return transaction.import_(export)
