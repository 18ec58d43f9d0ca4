"""A report as a value: tables with their titles, what it is of, and what it does not know."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from holdfast._version import __version__
from holdfast.config.model import Configuration

Cell = str | int | float | bool | datetime | None
"""None: not known. That nothing was said or done is a text."""
NOT_KNOWN = "not known"
NONE = "none"
"""In place of a text that nobody gave."""


@dataclass(frozen=True, slots=True)
class Table:
    """`name` is for programs, `title` for people. Each row has a cell per column; `empty` is said without rows."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    empty: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report is of, when it was made, by whom and with what."""

    configuration: str
    catalog: str
    catalog_version: int | None
    node: str
    made_at: datetime
    made_by: str
    holdfast: str = __version__

    @classmethod
    def of(cls, configuration: Configuration, *, version: int | None, now: datetime, actor: str) -> "Facts":
        """For an installation as this host sees it."""
        return cls(str(configuration.path), configuration.catalog.url, version, configuration.node_name, now, actor)

    @property
    def lines(self) -> list[tuple[str, Cell]]:
        """Name and value."""
        return [
            ("Configuration", self.configuration),
            ("Catalog", self.catalog),
            ("Catalog version", self.catalog_version),
            ("Seen from the node", self.node),
            ("Made at", self.made_at),
            ("Made by", self.made_by),
            ("Made with", f"Holdfast {self.holdfast}"),
        ]


@dataclass(frozen=True, slots=True)
class Report:
    """`question` is what it answers; `limits` are sentences on what it does not show."""

    name: str
    title: str
    question: str
    facts: Facts
    tables: tuple[Table, ...]
    limits: tuple[str, ...] = field(default=())


def shown(cell: Cell) -> str:
    """A cell for a person."""
    match cell:
        case None:
            return NOT_KNOWN
        case bool():
            return "yes" if cell else "no"
        case datetime():
            return f"{cell.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        case _:
            return str(cell)
