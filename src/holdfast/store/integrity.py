"""Finds what no record explains, and says what is served instead: the stricter of what is recorded and what is there.

A hand in the database that closes something (blocks, disables, stops, retires, removes) is obeyed. One that opens
something (unblocks, enables, another label, another secret, a new key) is not: what is recorded stays in force.
Either way somebody has to hear of it, and to say which of the two is meant: `holdfast catalog accept` or `revert`.
"""

from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection

from holdfast.audit.catalog_digest import digest_of, element, encode
from holdfast.keys.states import GenerationState
from holdfast.store import rows
from holdfast.store.entries import (
    CREDENTIAL,
    KEY,
    KEYSTORE,
    KINDS,
    Entry,
    Kind,
    as_recorded,
    decode,
    recorded_digest,
    total_of,
)
from holdfast.store.rows import BadRow, shown
from holdfast.xks.types import KeyStatus

_BREATH = 1_000
"""Entries after which `pulse` is called."""

Fetched = list[tuple[Any, list[Any]]]
"""Rows with their parts: of a key its generations."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """An entry that is not as recorded. `found` None: it is gone; `recorded` None: no record made it.

    Values are as JSON has them.
    """

    kind: str
    id: str
    recorded: Entry | None
    found: Entry | None

    @property
    def name(self) -> str:
        """As commands take it: `key/17`."""
        return f"{self.kind}/{self.id}"

    @property
    def identity(self) -> Any:
        """The primary key of its row."""
        entry = self.found or self.recorded
        return entry[0][0] if entry and entry[0] else self.id

    def title(self, keystores: Mapping[str, str]) -> str:
        """What people call it; `keystores` are the names of the keystores by their rows."""
        kind, entry = KINDS[self.kind], self.found or self.recorded or [[]]
        values = dict(zip(kind.columns, entry[0], strict=False))
        owner = keystores.get(str(values.get("keystore_id")), "?")
        match kind:
            case _ if kind is KEYSTORE:
                return f"keystore {rows.plain(values.get('name'))}"
            case _ if kind is KEY:
                return f"key {owner}/{rows.plain(values.get('external_key_id'))}"
            case _:
                return f"credential {rows.plain(self.id)} of the keystore {owner}"

    def differences(self) -> list[tuple[str, Any, Any]]:
        """Each value that differs: what it is called, as recorded, as found. Whole rows where one is not there."""
        kind = KINDS[self.kind]
        recorded, found = _by_row(kind, self.recorded), _by_row(kind, self.found)
        return [
            (f"{part}{name}", before, after)
            for part in (*recorded, *(part for part in found if part not in recorded))
            for name, before, after in _columns(recorded.get(part), found.get(part))
        ]

    def words(self) -> str:
        """What differs, in a line."""
        if self.found is None:
            return "it is gone"
        if self.recorded is None:
            return "it is new"
        return ", ".join(f"{name} {shown(before)} -> {shown(after)}" for name, before, after in self.differences())


def _by_row(kind: Kind, entry: Entry | None) -> dict[str, dict[str, Any]]:
    named: dict[str, dict[str, Any]] = {}
    for index, row in enumerate(entry or []):
        values = dict(zip(kind.columns if index == 0 else kind.part_columns, row, strict=False))
        named["" if index == 0 else f"generation {values.get('number')} (row {values.get('id')}): "] = values
    return named


def _columns(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[tuple[str, Any, Any]]:
    if before is None or after is None:
        return [("it", "there" if before else "not there", "there" if after else "not there")]
    return [
        (name, before.get(name), after.get(name))
        for name in (*before, *(name for name in after if name not in before))
        if before.get(name) != after.get(name)
    ]


class Comparison:
    """What one reader of the catalog has found to deviate, kept from one reading to the next."""

    def __init__(self) -> None:
        self.deviations: dict[tuple[str, str], Deviation] = {}
        self.mismatch: str | None = None
        """Why the recorded entries themselves cannot be right; None: the latest record says that they are."""

    def stricter(
        self,
        connection: Connection,
        read: Mapping[str, Fetched],
        *,
        whole: bool,
        pulse: Callable[[], None] = lambda: None,
    ) -> dict[str, Fetched]:
        """The rows that may be served, of those that were read: all keystores, all live credentials, some keys.

        `whole`: all keys too. As long as nothing deviates that costs one query and a sum over what was read.
        """
        if whole and _adds_up(connection, read, pulse):
            self.deviations, self.mismatch = {}, None
            return dict(read)
        contents = {name: {str(row[0]): _content(row, parts) for row, parts in read[name]} for name in KINDS}
        if whole:
            self.compare_all(connection, contents)
        else:
            for name, kind in KINDS.items():
                ids = list(contents[name]) if kind is KEY else None
                self._compare(name, contents[name], as_recorded(connection, kind, ids))
        if not self.deviations:
            return dict(read)
        return {name: self._substitutes(name, fetched) for name, fetched in read.items()}

    def compare_all(self, connection: Connection, contents: Mapping[str, Mapping[str, bytes]]) -> None:
        """With every entry of the catalog, by kind and id."""
        recorded = {name: as_recorded(connection, kind, None) for name, kind in KINDS.items()}
        self.deviations = {}
        self.mismatch = None if recorded_digest(connection) == digest_of(total_of(recorded)) else _MISMATCH
        for name, entries in contents.items():
            self._compare(name, entries, recorded[name])

    def _compare(self, name: str, found: Mapping[str, bytes], recorded: Mapping[str, str]) -> None:
        for identity in found.keys() | recorded.keys():
            content, known = found.get(identity), recorded.get(identity)
            if content is not None and known is not None and content == known.encode(errors="replace"):
                self.deviations.pop((name, identity), None)
            else:
                there = None if content is None else decode(content.decode())
                self.deviations[name, identity] = Deviation(name, identity, decode(known), there)

    def _substitutes(self, name: str, fetched: Fetched) -> Fetched:
        made = []
        for row, parts in fetched:
            deviation = self.deviations.get((name, str(row[0])))
            if deviation is None:
                made.append((row, parts))
            elif _is_wrong(name, row, parts):
                made.append((row, parts))  # and stands still as it is
            elif deviation.recorded is not None:
                made.append(_STRICTER[name](deviation.recorded, row, parts))
            elif name == KEY.name:
                made.append((row, []))  # so that it is refused, and what was served under its name before is not
        return made


def sentences(deviations: Iterable[Deviation], mismatch: str | None, keystores: Mapping[str, str]) -> tuple[str, ...]:
    """What an operator is told: each entry, what differs, and what to do. `keystores` as for `Deviation.title`."""
    said = [
        f"{one.title(keystores)} ({one.name}) was changed in the database, and no record explains it:"
        f" {one.words()}. What it opens is refused. `holdfast catalog accept {one.name}` makes it right,"
        f" `holdfast catalog revert {one.name}` puts back what is recorded"
        for one in deviations
    ]
    return (*sorted(said), *[one for one in [mismatch] if one is not None])


_MISMATCH = (
    "the recorded entries do not add up to the digest of the latest record: somebody has changed them, or the record"
)


def _adds_up(connection: Connection, read: Mapping[str, Fetched], pulse: Callable[[], None]) -> bool:
    total = count = 0
    for name, fetched in read.items():
        for row, parts in fetched:
            total += element(name, _content(row, parts))
            count += 1
            if not count % _BREATH:
                pulse()
    return digest_of(total) == recorded_digest(connection)


def _content(row: Any, parts: Sequence[Any]) -> bytes:
    # A generation's last column is the count of its encryptions, which no record covers.
    return encode([row, *(list(part)[:-1] for part in parts)])


def _is_wrong(name: str, row: Any, parts: Sequence[Any]) -> bool:
    """Whether such a row is refused anyway (`rows`)."""
    try:
        if name == KEY.name:
            rows.external_key(row, rows.external_key_id(row).value, parts)
        elif name == CREDENTIAL.name:
            rows.credential(row)
        else:
            rows.prefix(row), rows.keystore_name(row), rows.region(row), rows.boolean(row.blocked, "blocked")
    except BadRow:
        return True
    return False


def _row(name: str, columns: Sequence[str]) -> Any:
    """A type for rows that stand for those of the database: values by name and in order."""
    return namedtuple(name, list(columns))  # noqa: PYI024 (its columns are those of the schema)


_KeystoreRow = _row("_KeystoreRow", KEYSTORE.columns)
_CredentialRow = _row("_CredentialRow", CREDENTIAL.columns)
_KeyRow = _row("_KeyRow", KEY.columns)
_GenerationRow = _row("_GenerationRow", rows.GENERATION)
_OCTETS = {"takeover_metadata", "tag", "cka_id", "canary"}


def _keystore(recorded: Entry, row: Any, parts: list[Any]) -> tuple[Any, list[Any]]:
    known = _KeystoreRow(*row_values(recorded[0], _KeystoreRow._fields))
    if rows.is_false(known.blocked):
        return known._replace(blocked=row.blocked, blocked_until=row.blocked_until), parts
    if rows.is_false(row.blocked):
        return known, parts
    ends = rows.moment(known.blocked_until), rows.moment(row.blocked_until)
    return known._replace(blocked_until=None if None in ends else max(filter(None, ends))), parts


def _credential(recorded: Entry, row: Any, parts: list[Any]) -> tuple[Any, list[Any]]:  # noqa: ARG001 (as the others)
    return _CredentialRow(*row_values(recorded[0], _CredentialRow._fields)), parts


def _key(recorded: Entry, row: Any, parts: list[Any]) -> tuple[Any, list[Any]]:
    known = _KeyRow(*row_values(recorded[0], _KeyRow._fields))
    if row.status != KeyStatus.ENABLED:
        known = known._replace(status=row.status)
    ends = [end for end in (rows.moment(known.enabled_until), rows.moment(row.enabled_until)) if end is not None]
    own = {part[0]: part for part in recorded[1:] if part}
    generations = [
        _generation(own[part.id], part) for part in parts if part.id in own and own[part.id][1:3] == [*part[1:3]]
    ]
    return known._replace(enabled_until=min(ends, default=None), pinned_to=_pins(known, row)), generations


def _pins(known: Any, row: Any) -> Any:
    """The KMS keys that both say; empty would be every one."""
    if known.pinned_to is None or row.pinned_to is None:
        return known.pinned_to or row.pinned_to
    return " ".join(arn for arn in known.pinned_to.split(" ") if arn in row.pinned_to.split(" ")) or known.pinned_to


def _generation(recorded: list[Any], part: Any) -> Any:
    known = _GenerationRow(*row_values(recorded, _GenerationRow._fields))._replace(
        encryptions_reserved=part.encryptions_reserved
    )
    if part.stopped_at is not None and known.stopped_at is None:
        known = known._replace(stopped_at=part.stopped_at, stopped_reason=part.stopped_reason)
    return known._replace(state=part.state) if _use(part.state) < _use(known.state) else known


def _use(state: Any) -> int:
    """How much may be done with a generation: nothing, decrypt, encrypt."""
    if state == GenerationState.ACTIVE:
        return 2
    return int(state in _DECRYPTING)


_DECRYPTING = {state.value for state in GenerationState if state.decrypts}
_STRICTER: dict[str, Callable[[Entry, Any, list[Any]], tuple[Any, list[Any]]]] = {
    KEYSTORE.name: _keystore,
    CREDENTIAL.name: _credential,
    KEY.name: _key,
}


def row_values(recorded: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """A recorded row as the driver would give it."""
    padded = [*recorded, *[None] * (len(names) - len(recorded))]
    return [_octets(value) if name in _OCTETS else value for name, value in zip(names, padded, strict=True)]


def _octets(value: Any) -> Any:
    try:
        return None if value is None else msgspec.convert(value, bytes)
    except msgspec.ValidationError:
        return value
