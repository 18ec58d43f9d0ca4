"""Drills: which HSM keys a standby HSM or a restored backup has; and from where a destroyed one is gone."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select

from holdfast.store import rows, schema
from holdfast.store.reads import NEVER, Reading
from holdfast.store.rows import raw
from holdfast.store.writing import Writing

OPENED = "opened"
"""The outcome of a generation whose canary opened."""
_CHUNK = 200


@dataclass(frozen=True, slots=True)
class DrillRow:
    """One drill: how many generations an HSM opened, and how many not. `change_id`: its record says who."""

    time: datetime
    change_id: str
    hsm: str
    token_serial: str
    opened: int
    failed: int


@dataclass(frozen=True, slots=True)
class DrilledRow:
    """What the last drill of a token found of one generation. `opened_at`: when it last opened there; None: never."""

    generation_id: int
    hsm: str
    token_serial: str
    time: datetime
    outcome: str
    detail: str
    opened_at: datetime | None


@dataclass(frozen=True, slots=True)
class AttestedRow:
    """One token that was looked at when a generation's destruction was confirmed.

    `looked_at` None: nobody could look; a person said that the token does not exist any more.
    """

    generation_id: int
    hsm: str
    token_serial: str
    label: str
    cka_id: bytes | None
    looked_at: datetime | None
    change_id: str


# ---- what is known


def drills(state: Reading) -> list[DrillRow]:
    """Every drill, the oldest first."""
    table = schema.drills
    names = ("time", "change_id", "hsm", "token_serial", "opened", "failed")
    found = state.connection.execute(select(*raw(table, *names)).order_by(table.c.id))
    return [
        DrillRow(
            rows.moment(row.time) or NEVER,
            rows.plain(row.change_id),
            rows.plain(row.hsm),
            rows.said(row.token_serial) or "",
            _count(row.opened),
            _count(row.failed),
        )
        for row in found
    ]


def drilled(state: Reading) -> list[DrilledRow]:
    """What is known of each generation in each token that was drilled."""
    table = schema.drill_results
    names = ("generation_id", "hsm", "token_serial", "time", "outcome", "detail", "opened_at")
    found = state.connection.execute(select(*raw(table, *names)).order_by(table.c.generation_id, table.c.hsm))
    return [
        DrilledRow(
            row.generation_id,
            rows.plain(row.hsm),
            rows.said(row.token_serial) or "",
            rows.moment(row.time) or NEVER,
            rows.said(row.outcome) or "",
            rows.said(row.detail) or "",
            rows.moment(row.opened_at),
        )
        for row in found
    ]


def attested(state: Reading) -> list[AttestedRow]:
    """From where destroyed generations are gone."""
    table = schema.attestations
    names = ("generation_id", "hsm", "token_serial", "label", "cka_id", "looked_at", "change_id")
    found = state.connection.execute(select(*raw(table, *names)).order_by(table.c.generation_id, table.c.hsm))
    return [
        AttestedRow(
            row.generation_id,
            rows.plain(row.hsm),
            rows.said(row.token_serial) or "",
            rows.said(row.label) or "",
            rows.octets(row.cka_id),
            rows.moment(row.looked_at),
            rows.plain(row.change_id),
        )
        for row in found
    ]


def _count(value: object) -> int:
    return value if type(value) is int else 0


# ---- changes


@dataclass(frozen=True, slots=True)
class Found:
    """What a drill found of one generation. `detail` says more than the outcome, for people."""

    generation_id: int
    outcome: str
    detail: str = ""


def record_drill(transaction: Writing, hsm: str, token_serial: str, found: Sequence[Found]) -> None:
    """Keep one drill of a token, and of each generation what was found last."""
    connection, table, now = transaction.connection, schema.drill_results, transaction.now
    opened = sum(one.outcome == OPENED for one in found)
    connection.execute(
        insert(schema.drills).values(
            change_id=transaction.change_id,
            hsm=hsm,
            token_serial=token_serial,
            time=now,
            opened=opened,
            failed=len(found) - opened,
        )
    )
    here = (table.c.hsm == hsm) & (table.c.token_serial == token_serial)
    before: dict[int, Any] = {
        row.generation_id: row.opened_at
        for row in connection.execute(select(table.c.generation_id, table.c.opened_at).where(here))
    }
    for start in range(0, len(found), _CHUNK):
        part = found[start : start + _CHUNK]
        numbers = [one.generation_id for one in part]
        connection.execute(delete(table).where(here, table.c.generation_id.in_(numbers)))
        connection.execute(
            insert(table),
            [
                {
                    "generation_id": one.generation_id,
                    "hsm": hsm,
                    "token_serial": token_serial,
                    "time": now,
                    "outcome": one.outcome,
                    "detail": one.detail,
                    "opened_at": now if one.outcome == OPENED else before.get(one.generation_id),
                }
                for one in part
            ],
        )


def attest(transaction: Writing, looks: Iterable[AttestedRow]) -> None:
    """Keep from where a destroyed generation is gone."""
    table = schema.attestations
    for look in looks:
        values = asdict(look) | {"change_id": transaction.change_id}
        transaction.connection.execute(insert(table).values(values))
