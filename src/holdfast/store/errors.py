"""What the catalog can report, in words for the person who runs it."""


class CatalogError(Exception):
    """A refusal or failure of the catalog. `message` says what happened and what to do next."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Refused(CatalogError):
    """A value that was given is none that the catalog takes."""


class NotFound(CatalogError):
    """No such keystore, credential or external key."""


class AlreadyExists(CatalogError):
    """A name, path prefix, access key id, external key id or HSM key is taken."""


class InUse(CatalogError):
    """The keystore still has keys or live credentials."""


class Unavailable(CatalogError):
    """The database does not answer, or does not let us in."""


class NoVersion(Unavailable):
    """The row that holds the catalog's version is missing, or holds something else."""

    def __init__(self) -> None:
        super().__init__(
            "the catalog's own row is missing or wrong (table catalog: version and removed are whole numbers, version"
            " from 1 and far below 2^63): restore the catalog from its backup"
        )


class SchemaMismatch(CatalogError):
    """The tables are not those of this version of Holdfast."""
