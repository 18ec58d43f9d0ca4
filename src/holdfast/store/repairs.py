"""What a person decides about entries that no record explains: they are right as they are, or what is recorded is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Table, select

from holdfast.audit.catalog_digest import digest_of, element, encode
from holdfast.store import schema
from holdfast.store.entries import CREDENTIAL, KEY, KINDS, Entry, in_catalog, recorded_digest
from holdfast.store.errors import Refused
from holdfast.store.integrity import Comparison, Deviation, row_values, sentences
from holdfast.store.reads import Reading
from holdfast.store.rows import moment, plain, raw
from holdfast.store.schema import Utc
from holdfast.store.use import batched
from holdfast.store.writing import Writing

_CHUNK = 500


def deviations(state: Reading) -> tuple[list[Deviation], str | None]:
    """Every entry that is not as recorded, and why the records themselves cannot be right; None: they are."""
    comparison = Comparison()
    found = {name: in_catalog(state.connection, kind, None) for name, kind in KINDS.items()}
    comparison.compare_all(
        state.connection, {name: {one: encode(entry) for one, entry in own.items()} for name, own in found.items()}
    )
    return sorted(comparison.deviations.values(), key=lambda one: one.name), comparison.mismatch


def keystore_names(state: Reading) -> dict[str, str]:
    """The names of the keystores by their rows, for `Deviation.title`."""
    table = schema.keystores
    return {str(row.id): plain(row.name) for row in state.connection.execute(select(table.c.id, table.c.name))}


def unexplained(state: Reading, *, breathe: Callable[[], object]) -> tuple[str, ...]:
    """What no record explains, in words, by comparing everything; `breathe` is called after some hundred entries."""
    total = 0
    for name, kind in KINDS.items():
        ids = state.connection.execute(select(*raw(kind.table, kind.columns[0]))).scalars().all()
        for chunk in batched(ids, _CHUNK):
            entries = in_catalog(state.connection, kind, chunk).values()
            total += sum(element(name, encode(entry)) for entry in entries)
            breathe()
    if digest_of(total) == recorded_digest(state.connection):
        return ()
    return sentences(*deviations(state), keystore_names(state))


class Repairs(Writing):
    """Changes to entries that deviate. They raise CatalogError."""

    def accept_entries(self, accepted: Sequence[Deviation], *, all_of_them: bool) -> None:
        """Take them as they are for recorded; `all_of_them`: nothing else deviates, so the sum is counted anew."""
        for one in accepted:
            self.take_as_found(KINDS[one.kind], one.identity)
        self.counts_anew = all_of_them

    def revert_entries(self, reverted: Sequence[Deviation]) -> None:
        """Put back what is recorded. Raises Refused for a key, or a part of one, that is gone: so is its count."""
        for one in reverted:
            if one.recorded is None:
                self._remove(one)
            else:
                require_revertible(one)
                self._put_back(one, one.recorded)

    def _remove(self, one: Deviation) -> None:
        kind, identity = KINDS[one.kind], one.identity
        if kind is KEY:
            self.remove(schema.key_generations, schema.key_generations.c.key_id == identity)
        self.remove(kind.table, kind.key == identity)

    def _put_back(self, one: Deviation, recorded: Entry) -> None:
        kind, identity = KINDS[one.kind], recorded[0][0]
        more = {"retired_at": None} if kind is CREDENTIAL else {}
        self.alter(kind.table, kind.key == identity, **_typed(kind.table, kind.columns, recorded[0]), **more)
        parts = kind.parts
        if parts is None:
            return
        kept = [part[0] for part in recorded[1:]]
        self.remove(parts, parts.c.key_id == identity, parts.c.id.not_in(kept))
        # The database takes no two active ones: those that do not become active first.
        for part in sorted(recorded[1:], key=lambda part: "active" in part):
            self.alter(parts, parts.c.id == part[0], **_typed(parts, kind.part_columns, part))


def require_revertible(one: Deviation) -> None:
    """Raises Refused where the rows that are recorded are not there any more."""
    there = {part[0] for part in (one.found or [])[1:]}
    gone = one.found is None or not {part[0] for part in (one.recorded or [])[1:]} <= there
    if gone and one.kind != CREDENTIAL.name:
        raise Refused(
            f"{one.name} cannot be put back: its rows are gone, and with them the count of its encryptions. Restore"
            f" the catalog from its backup, or accept that it is gone: `holdfast catalog accept {one.name}`"
        )


def _typed(table: Table, columns: Sequence[str], recorded: Sequence[Any]) -> Mapping[str, Any]:
    values = dict(zip(columns, row_values(recorded, columns), strict=True))
    return {
        name: moment(value) if isinstance(table.c[name].type, Utc) else value
        for name, value in values.items()
        if name != columns[0]
    }
