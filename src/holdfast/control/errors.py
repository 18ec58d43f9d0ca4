"""What an operator's request can run into: what happened, and a hint that says what to do next."""


class AdminError(Exception):
    """A refusal that a person reads. `hint` says what to do next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(AdminError):
    """No keystore, credential, key or file goes by this name."""


class Conflict(AdminError):
    """What is asked for contradicts what exists."""


class Outdated(Conflict):
    """The plan does not fit the catalog any more; nothing was changed."""


class Denied(AdminError):
    """Whoever asks may not do this, or an approval is none."""


class Invalid(AdminError):
    """A value or a file is not what it must be."""


class Unconfirmed(AdminError):
    """The plan was not confirmed; nothing was changed."""


class NotInForce(AdminError):
    """The change is made, and a node has not confirmed it in time."""


class Prerequisite(AdminError):
    """Something that must be installed or running is not."""


class HsmRefused(AdminError):
    """The module, the token or the key does not permit it, or is not reachable."""
