"""Issues, references and retires credentials: the row in the database, the secret in its own file."""

from sqlalchemy import Connection, select

from holdfast.secrets.errors import SecretMissing
from holdfast.secrets.reference import SecretReference, Source
from holdfast.store import schema
from holdfast.store.errors import AlreadyExists, NotFound, Refused
from holdfast.store.reads import keystore_id
from holdfast.store.writing import Writing
from holdfast.xks.types import AccessKeyId, SecretAccessKey


class CredentialChanges(Writing):
    """Changes to credentials. They raise CatalogError."""

    def issue_credential(self, keystore: str, credential: tuple[AccessKeyId, SecretAccessKey]) -> None:
        """A live credential whose secret is written to a file of its own, before the row that names it."""
        access_key_id, secret = credential
        identity = keystore_id(self.connection, keystore)
        require_id_free(self.connection, access_key_id)
        # The write lock is held: no other process can be issuing this id or writing this file.
        self.on_failure.append(lambda: self.secrets.remove(access_key_id))
        self._insert(identity, access_key_id, self.secrets.create(access_key_id, secret))

    def reference_credential(self, keystore: str, access_key_id: AccessKeyId, secret_ref: str) -> None:
        """A live credential whose secret the operator keeps: `env:NAME` or `credential:NAME`. It is not read here."""
        reference = SecretReference.parse(secret_ref)
        if reference.source is Source.FILE:
            raise Refused(
                "a credential's own file is made by `holdfast credential issue`;"
                " a secret kept elsewhere is referenced as env:NAME or credential:NAME"
            )
        self.secrets.check(access_key_id, reference)
        identity = keystore_id(self.connection, keystore)
        require_id_free(self.connection, access_key_id)
        self._insert(identity, access_key_id, reference)

    def retire_credential(self, access_key_id: AccessKeyId) -> None:
        """End a credential; its id is never used again. The secret's file is removed after the commit.

        Raises NotFound, also if it is retired already.
        """
        table = schema.credentials
        live = (table.c.access_key_id == access_key_id.value, table.c.retired_at.is_(None))
        if not self.alter(table, *live, retired_at=self.now):
            raise NotFound(f"there is no live credential {access_key_id}: `holdfast credential list` shows them")

        def remove() -> None:
            try:
                # Also for a reference elsewhere: a file of this name could only be a leftover.
                self.secrets.remove(access_key_id)
            except SecretMissing as error:
                raise SecretMissing(
                    f"the credential {access_key_id} is retired, but {error}: remove it by hand"
                ) from None

        self.after_commit.append(remove)

    def _insert(self, identity: int, access_key_id: AccessKeyId, reference: SecretReference) -> None:
        self.add(
            schema.credentials,
            access_key_id=access_key_id.value,
            keystore_id=identity,
            secret_ref=str(reference),
            created_at=self.now,
        )


def require_id_free(connection: Connection, access_key_id: AccessKeyId) -> None:
    """Raises AlreadyExists for an access key id that is or was in use."""
    table = schema.credentials
    found = select(table.c.access_key_id).where(table.c.access_key_id == access_key_id.value)
    if connection.execute(found).first() is not None:
        raise AlreadyExists(f"the access key id {access_key_id} is or was in use: issue a new one")
