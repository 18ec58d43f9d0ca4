"""What nodes find out about keys and keep for all others: canaries, tokens, stops. Each is a recorded change."""

import platform
from hashlib import sha256
from typing import Any

from sqlalchemy import select

from holdfast.audit.records import Actor, Change, Effect
from holdfast.store import rows, schema
from holdfast.store.errors import Refused
from holdfast.store.local_stop import Stop
from holdfast.store.records import new_change_id
from holdfast.store.transaction import Changes, Transaction

_MAX_REASON = 1024
_MAX_SERIAL = 64


class Findings(Changes):
    """Changes by a node in its own name. They raise CatalogError.

    They change the version, so that every worker of every proxy takes them over. What is recorded already is no
    change: many workers may find the same at once.
    """

    def record_canary(self, generation_id: int, canary: bytes) -> bool:
        """Keep the first canary of a generation; False: it has one already, or there is no such generation."""
        table = schema.key_generations
        said = {"canary_sha256": sha256(canary).hexdigest()}
        return self._found("node canary", generation_id, table.c.canary.is_(None), said=said, canary=canary)

    def record_token_serial(self, generation_id: int, serial: str) -> bool:
        """Keep the serial number of the token that holds the key; False: it is recorded already."""
        if not serial or len(serial) > _MAX_SERIAL:
            raise Refused(f"a token's serial number has 1 to {_MAX_SERIAL} characters")
        other = schema.key_generations.c.token_serial.is_distinct_from(serial)
        return self._found("node token", generation_id, other, said={"token_serial": serial}, token_serial=serial)

    def stop_generation(self, generation_id: int, reason: str) -> bool:
        """Stop a generation on every proxy until a person releases it; False: it is stopped already."""
        kept = reason[:_MAX_REASON]
        return self._found(
            "node stop",
            generation_id,
            schema.key_generations.c.stopped_at.is_(None),
            said={"stopped": kept},
            stopped_at=self._now(),
            stopped_reason=kept,
        )

    def record_local_stop(self, stop: Stop, *, node: str) -> list[str]:
        """Block what a person has stopped on a node, once; the keystores that this has blocked.

        A keystore that is not there is left out.
        """
        if not stop.id:
            return []
        try:
            with self.changing(stop.id, needs_version=False) as transaction:
                names = _to_block(transaction, stop)
                for name in names:
                    transaction.set_blocked(name, blocked=True)
                transaction.record(
                    Change(
                        time=transaction.now,
                        id=stop.id,
                        action="node emergency stop",
                        subject=stop.what(),
                        actor=Actor(name=stop.actor, known_by="node", where=node),
                        effects=tuple(Effect(subject=f"keystore {name}", after={"blocked": True}) for name in names),
                        reason=stop.reason,
                        catalog_version=transaction.version(),
                    ),
                    required=False,
                )
        except _SaidAlready:
            return []
        return names

    def _found(
        self, action: str, generation_id: int, condition: Any, *, said: dict[str, Any], **values: object
    ) -> bool:
        table = schema.key_generations
        with self._reading() as connection:
            if connection.execute(select(table.c.id).where(table.c.id == generation_id, condition)).first() is None:
                return False  # without a new version for nothing
        change_id = new_change_id()
        try:
            with self.changing(change_id) as transaction:
                _require_new(transaction.change_generation(generation_id, condition, **values))
                subject = _name_of(transaction, generation_id)
                transaction.record(
                    Change(
                        time=transaction.now,
                        id=change_id,
                        action=action,
                        subject=subject,
                        actor=Actor(name="holdfast serve", known_by="node", where=platform.node()),
                        effects=(Effect(subject=subject, after=said),),
                        catalog_version=transaction.version(),
                    )
                )
        except _SaidAlready:
            return False
        return True


def _to_block(transaction: Transaction, stop: Stop) -> list[str]:
    """What is still open, or blocked for a time. Raises _SaidAlready if nothing is, or the stop is recorded."""
    known = select(schema.changes.c.number).where(schema.changes.c.id == stop.id)
    names = [
        row.name
        for row in transaction.keystores()
        if stop.covers(row.name) and (not row.blocked or row.blocked_until is not None)
    ]
    if not names or transaction.connection.execute(known).first() is not None:
        raise _SaidAlready
    return names


class _SaidAlready(Exception):
    """Another worker was faster; this ends the transaction without a new version."""


def _require_new(changed: bool) -> None:  # noqa: FBT001 (the answer of the call around which it stands)
    if not changed:
        raise _SaidAlready


def _name_of(transaction: Transaction, generation_id: int) -> str:
    owner, key, table = schema.keystores, schema.external_keys, schema.key_generations
    row = transaction.connection.execute(
        select(*rows.raw(owner, "name"), *rows.raw(key, "external_key_id"), *rows.raw(table, "number"))
        .join_from(owner, key)
        .join(table)
        .where(table.c.id == generation_id)
    ).first()
    if row is None:
        return f"generation in row {generation_id}"
    return f"key {rows.plain(row.name)}/{rows.plain(row.external_key_id)} generation {rows.shown(row.number)}"
