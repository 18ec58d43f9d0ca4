"""The directory of secret access keys: one file per credential, named by its access key id, readable by its owner."""

from pathlib import Path

from holdfast import durable
from holdfast.secrets.errors import ReferenceRefused, SecretMissing
from holdfast.secrets.reference import SecretReference, Source
from holdfast.xks.errors import XksError
from holdfast.xks.types import AccessKeyId, SecretAccessKey

REFERENCE_PREFIX = "HOLDFAST_SECRET_"
"""How the name of an environment variable or systemd credential begins that a credential may refer to by default."""


class SecretFiles:
    """Reads and writes secret access keys. In the catalog a file of this directory is `file:ACCESS_KEY_ID`.

    So the directory can move, and on each machine of a fleet it may lie elsewhere. Who can write to the database must
    not choose the secret: a file is the credential's own, and a variable or systemd credential has a name that begins
    with `reference_prefix` (letter case, and - for _, do not count).
    """

    def __init__(self, directory: Path, reference_prefix: str) -> None:
        self._directory = directory
        self._reference_prefix = reference_prefix

    def create(self, access_key_id: AccessKeyId, secret: SecretAccessKey) -> SecretReference:
        """Write the secret durably: after this returns a power loss does not lose it. Raises SecretMissing."""
        path = self._path(access_key_id)
        try:
            durable.make_directory(self._directory)
            # What a crash left behind has no row in the catalog: that secret was never given to anyone.
            path.unlink(missing_ok=True)
            durable.create(path, secret.reveal() + b"\n", like=self._directory)
            durable.sync_directory(self._directory)
        except OSError as error:
            raise SecretMissing(f"the secret file {path} cannot be written: {error.strerror}") from None
        return SecretReference(Source.FILE, access_key_id.value)

    def remove(self, access_key_id: AccessKeyId) -> None:
        """Remove the secret, durably; absent is fine. Raises SecretMissing."""
        path = self._path(access_key_id)
        try:
            path.unlink(missing_ok=True)
            durable.sync_directory(self._directory)
        except FileNotFoundError:
            return  # the directory itself is gone
        except OSError as error:
            raise SecretMissing(f"the secret file {path} cannot be removed: {error.strerror}") from None

    def read(self, access_key_id: AccessKeyId, reference: SecretReference) -> SecretAccessKey:
        """The secret access key of a credential. Raises SecretMissing, also if it is malformed; ReferenceRefused."""
        self.check(access_key_id, reference)
        if reference.source is Source.FILE:
            reference = SecretReference(Source.FILE, str(self._path(access_key_id)))
        try:
            return SecretAccessKey.parse(reference.read().reveal().decode("latin-1"))
        except XksError as error:
            raise SecretMissing(f"{reference} holds no secret access key: {error.message}") from None

    def check(self, access_key_id: AccessKeyId, reference: SecretReference) -> None:
        """Raises ReferenceRefused for a reference that this credential may not have."""
        if reference.source is Source.FILE:
            if reference.name != access_key_id.value:
                raise ReferenceRefused(
                    f"its secret is said to be in {reference}, and a credential's file has its own name,"
                    f" file:{access_key_id}: retire it, and issue another one"
                )
        elif not _plain(reference.name).startswith(_plain(self._reference_prefix)):
            example = self._reference_prefix + "PROD"
            if reference.source is Source.CREDENTIAL:
                example = example.lower().replace("_", "-")
            raise ReferenceRefused(
                f"{reference} is not a name that a credential may refer to: give the secret a name like"
                f" {reference.source}:{example}, or set `reference_prefix` in [catalog]"
            )

    def _path(self, access_key_id: AccessKeyId) -> Path:
        return self._directory / access_key_id.value


def _plain(name: str) -> str:
    return name.upper().replace("-", "_")
