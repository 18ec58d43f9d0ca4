"""What reports are made from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from holdfast.audit.records import Actor, Change
from holdfast.config.model import Configuration
from holdfast.control.reports.document import Facts, Report, Table
from holdfast.store.reads import Reading
from holdfast.store.records import ChangeRow


@dataclass(frozen=True, slots=True)
class Source:
    """An installation at one moment, `now`: configuration, a reading of its catalog, its records; and who asks."""

    configuration: Configuration
    state: Reading
    actor: Actor
    now: datetime
    rows: Sequence[ChangeRow]
    policy_text: str | None = None
    """The file of policies for callers, where there is one and it can be read."""

    @property
    def changes(self) -> list[Change]:
        """The records that can be read, the oldest first."""
        return [row.change for row in self.rows if row.change is not None]

    def report(self, name: str, title: str, question: str, *tables: Table, limits: Iterable[str]) -> Report:
        """One on this installation."""
        made_by = f"{self.actor.name} ({self.actor.known_by}, {self.actor.where})"
        facts = Facts.of(self.configuration, version=self.state.version(), now=self.now, actor=made_by)
        return Report(name, title, question, facts, tables, tuple(limits))
