"""What a secret's reference or file can report, in words for the person who wrote it."""


class SecretError(Exception):
    """A secret that cannot be had. `message` says what happened and what to do next."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ReferenceRefused(SecretError):
    """The reference is malformed, or not one that its credential may have."""


class SecretMissing(SecretError):
    """The file, environment variable or systemd credential is absent, unreadable or malformed."""
