"""Issues, references and retires credentials: the row in the database, the secret in its own file."""

from contextlib import suppress

from sqlalchemy import Connection, insert, select, update

from holdfast.secrets.errors import SecretMissing
from holdfast.secrets.files import SecretFiles
from holdfast.secrets.reference import SecretReference, Source
from holdfast.store import schema
from holdfast.store.database import THIS_VERSION, Database
from holdfast.store.errors import AlreadyExists, NotFound, Refused, Unavailable
from holdfast.store.reads import keystore_id
from holdfast.xks.types import AccessKeyId, SecretAccessKey


class CredentialChanges(Database):
    """Changes to credentials. They raise CatalogError and then have changed nothing."""

    _secrets: SecretFiles

    def issue_credential(self, keystore: str, credential: tuple[AccessKeyId, SecretAccessKey]) -> None:
        """A live credential whose secret is written to a file of its own, before the row that names it."""
        access_key_id, secret = credential
        written = False
        try:
            with self._changing() as connection:
                identity = keystore_id(connection, keystore)
                _check_free(connection, access_key_id)
                # The write lock is held: no other process can be issuing this id or writing this file.
                written = True
                reference = self._secrets.create(access_key_id, secret)
                self._insert(connection, identity, access_key_id, reference)
        except BaseException:
            if written:
                self._remove_unless_committed(access_key_id)
            raise

    def reference_credential(self, keystore: str, access_key_id: AccessKeyId, secret_ref: str) -> None:
        """A live credential whose secret the operator keeps: `env:NAME` or `credential:NAME`. It is not read here."""
        reference = SecretReference.parse(secret_ref)
        if reference.source is Source.FILE:
            raise Refused(
                "a credential's own file is made by `holdfast credential issue`;"
                " a secret kept elsewhere is referenced as env:NAME or credential:NAME"
            )
        self._secrets.check(access_key_id, reference)
        with self._changing() as connection:
            identity = keystore_id(connection, keystore)
            _check_free(connection, access_key_id)
            self._insert(connection, identity, access_key_id, reference)

    def retire_credential(self, access_key_id: AccessKeyId) -> None:
        """End a credential; its id is never used again. The secret's file is removed after the commit.

        Raises NotFound, also if it is retired already.
        """
        table = schema.credentials
        with self._changing() as connection:
            retired = connection.execute(
                update(table)
                .where(table.c.access_key_id == access_key_id.value, table.c.retired_at.is_(None))
                .values(retired_at=self._now(), changed=THIS_VERSION)
            )
            if not retired.rowcount:
                raise NotFound(f"there is no live credential {access_key_id}: `holdfast credential list` shows them")
        try:
            # Also for a reference elsewhere: a file of this name could only be a leftover.
            self._secrets.remove(access_key_id)
        except SecretMissing as error:
            raise SecretMissing(
                f"the credential {access_key_id} is retired, but {error}: remove it by hand"
            ) from None

    def _insert(
        self, connection: Connection, identity: int, access_key_id: AccessKeyId, reference: SecretReference
    ) -> None:
        connection.execute(
            insert(schema.credentials).values(
                access_key_id=access_key_id.value,
                keystore_id=identity,
                secret_ref=str(reference),
                created_at=self._now(),
                changed=THIS_VERSION,
            )
        )

    def _remove_unless_committed(self, access_key_id: AccessKeyId) -> None:
        """Remove the secret of a row that failed.

        A connection that broke during the commit leaves open whether the row exists. If that cannot be found
        out the file stays: without a row it opens nothing, and a row without it would be a dead credential.
        """
        try:
            with self._reading() as connection:
                committed = _exists(connection, access_key_id)
        except Unavailable:
            return
        if not committed:
            with suppress(SecretMissing):  # the error that led here says more
                self._secrets.remove(access_key_id)


def _check_free(connection: Connection, access_key_id: AccessKeyId) -> None:
    if _exists(connection, access_key_id):
        raise AlreadyExists(f"the access key id {access_key_id} is or was in use: issue a new one")


def _exists(connection: Connection, access_key_id: AccessKeyId) -> bool:
    table = schema.credentials
    found = select(table.c.access_key_id).where(table.c.access_key_id == access_key_id.value)
    return connection.execute(found).first() is not None
