"""Finds a keystore, credential or key by its name, or says which ones there are."""

from typing import Protocol

from holdfast.control.errors import Conflict, NotFound
from holdfast.keys.states import GenerationState
from holdfast.store.reads import CredentialRow, KeyRow, KeystoreRow


class Lists(Protocol):
    """A catalog, or one moment of it."""

    def keystores(self) -> list[KeystoreRow]:
        """Every keystore."""

    def credentials(self, keystore: str | None) -> list[CredentialRow]:
        """The credentials of one keystore, or of all."""

    def keys(self, keystore: str | None) -> list[KeyRow]:
        """The keys of one keystore, or of all."""


def find_keystore(catalog: Lists, name: str) -> KeystoreRow:
    """The keystore's row. Raises NotFound."""
    rows = catalog.keystores()
    for row in rows:
        if row.name == name:
            return row
    known = ", ".join(row.name for row in rows)
    raise NotFound(
        f"there is no keystore {name!r}",
        hint=f"There are: {known}." if known else "`holdfast keystore create NAME` makes one.",
    )


def find_credential(catalog: Lists, access_key_id: str) -> CredentialRow:
    """The credential's row, live or retired. Raises NotFound."""
    for row in catalog.credentials(None):
        if row.access_key_id == access_key_id:
            return row
    raise NotFound(f"there is no credential {access_key_id}", hint="`holdfast credential list` shows them.")


def find_generations(catalog: Lists, keystore: str, external_key_id: str) -> list[KeyRow]:
    """The rows of the external key's generations, oldest first. Raises NotFound."""
    rows = catalog.keys(find_keystore(catalog, keystore).name)
    own = sorted((row for row in rows if row.external_key_id == external_key_id), key=lambda row: row.generation)
    if not own:
        raise NotFound(
            f"the keystore {keystore!r} has no key {external_key_id}",
            hint=f"`holdfast key list {keystore}` shows those it has. Upper and lower case differ.",
        )
    return own


def find_key(catalog: Lists, keystore: str, external_key_id: str) -> KeyRow:
    """The row of the external key's active generation. Raises NotFound, Conflict."""
    rows = find_generations(catalog, keystore, external_key_id)
    for row in rows:
        if row.state is GenerationState.ACTIVE:
            return row
    raise Conflict(
        f"no generation of the key {external_key_id} is active in the catalog: a row is wrong",
        hint="`holdfast doctor` names it. Restore the catalog from its backup.",
    )
