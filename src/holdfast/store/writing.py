"""What the parts of a change have in common: one connection in its transaction, one time, and files beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.store.reads import Reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from holdfast.secrets.files import SecretFiles


class Writing(Reading):
    """One transaction that changes something; `now` is the time of all that it writes, `change_id` its record's.

    `on_failure` is called after a rollback, or a commit of unknown outcome; `after_commit` when all of it is there.
    """

    def __init__(self, connection: Connection, secrets: SecretFiles, *, change_id: str, now: datetime) -> None:
        super().__init__(connection, now=now)
        self.secrets = secrets
        self.change_id = change_id
        self.on_failure: list[Callable[[], None]] = []
        self.after_commit: list[Callable[[], None]] = []
