"""What proves a key generation and what stops it. Each change and its new version are one transaction."""

from typing import Any

from sqlalchemy import update

from holdfast.store import schema
from holdfast.store.database import THIS_VERSION, Database
from holdfast.store.errors import NotFound, Refused

_MAX_REASON = 1024
_MAX_SERIAL = 64


class GenerationChanges(Database):
    """Changes to generations, by their row's id (`Generation.id`). They raise CatalogError.

    They change the version, so that every worker of every proxy takes them over. What is recorded already is no
    change: many workers may find the same at once.
    """

    def record_canary(self, generation_id: int, canary: bytes) -> bool:
        """Keep the first canary of a generation; False: it has one already, or there is no such generation."""
        table = schema.key_generations
        return self._change(generation_id, table.c.canary.is_(None), canary=canary)

    def replace_canary(self, generation_id: int, canary: bytes | None) -> None:
        """Keep another canary, or none: the next use then makes one. Raises NotFound."""
        if not self._change(generation_id, canary=canary):
            raise _not_found(generation_id)

    def record_token_serial(self, generation_id: int, serial: str) -> bool:
        """Keep the serial number of the token that holds the key; False: it is recorded already."""
        if not serial or len(serial) > _MAX_SERIAL:
            raise Refused(f"a token's serial number has 1 to {_MAX_SERIAL} characters")
        table = schema.key_generations
        return self._change(generation_id, table.c.token_serial.is_distinct_from(serial), token_serial=serial)

    def stop_generation(self, generation_id: int, reason: str) -> bool:
        """Stop a generation on every proxy until `release_generation`; False: it is stopped already."""
        table = schema.key_generations
        return self._change(
            generation_id, table.c.stopped_at.is_(None), stopped_at=self._now(), stopped_reason=reason[:_MAX_REASON]
        )

    def release_generation(self, generation_id: int) -> bool:
        """End a stop; False: it was not stopped."""
        table = schema.key_generations
        return self._change(generation_id, table.c.stopped_at.is_not(None), stopped_at=None, stopped_reason=None)

    def rebind_generation(self, generation_id: int, *, label: str, cka_id: bytes | None) -> None:
        """Find the generation's key by another label or CKA_ID. Raises NotFound. The HSM is not asked."""
        if not self._change(generation_id, label=label, cka_id=cka_id):
            raise _not_found(generation_id)

    def _change(self, generation_id: int, *conditions: Any, **values: object) -> bool:
        table = schema.key_generations
        row = (table.c.id == generation_id, *conditions)
        with self._reading() as connection:
            if connection.execute(table.select().with_only_columns(table.c.id).where(*row)).first() is None:
                return False  # without a new version for nothing
        with self._changing() as connection:
            return bool(connection.execute(update(table).where(*row).values(changed=THIS_VERSION, **values)).rowcount)


def _not_found(generation_id: int) -> NotFound:
    return NotFound(f"there is no key generation {generation_id} in the catalog")
