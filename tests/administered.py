"""A catalog that tests change directly, a change each, without plan and actor."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from holdfast.audit.records import Actor, Change, Effect
from holdfast.store import store
from holdfast.store.changes import Transaction
from holdfast.store.records import new_change_id
from holdfast.xks.types import UriPathPrefix


class Catalog(store.Catalog):
    """`control` is the road of a change; what a test sets up beside it is recorded as such."""

    @contextmanager
    def change(self, *effects: Effect, needs_version: bool = True) -> Iterator[Transaction]:
        """A change of several parts."""
        with self.changing(needs_version=needs_version) as transaction:
            yield transaction
            actor = Actor(name="test", known_by="test")
            change = Change(
                time=self._now(),
                id=new_change_id(),
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
