"""What people say of external keys, as a change writes it. The feed of the nodes takes no notice."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, insert, select

from holdfast.store import schema
from holdfast.store.errors import NotFound
from holdfast.store.reads import keystore_id
from holdfast.store.writing import Writing


def describe(
    transaction: Writing,
    keystore: str,
    external_key_id: str,
    *,
    values: Mapping[str, Any],
    tags: Mapping[str, str | None],
) -> None:
    """Set columns of `external_keys` that describe the key, and tags by name; None removes. Raises NotFound."""
    connection, key, table = transaction.connection, schema.external_keys, schema.key_tags
    identity = connection.execute(
        select(key.c.id).where(
            key.c.keystore_id == keystore_id(connection, keystore), key.c.external_key_id == external_key_id
        )
    ).scalar()
    if identity is None:
        raise NotFound(f"the keystore {keystore!r} has no key {external_key_id}")
    if values:
        transaction.alter_beside(key, key.c.id == identity, **values)
    for name, value in tags.items():
        connection.execute(delete(table).where(table.c.key_id == identity, table.c.name == name))
        if value is not None:
            connection.execute(insert(table).values(key_id=identity, name=name, value=value))
