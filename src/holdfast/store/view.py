"""One reader's view of the catalog: brought up to date by reading what changed, and shared between its snapshots.

Of 100,000 keys one change is one key: it is read, checked and put into a copy of its keystore's dictionary. All other
keys, and the dictionaries of all other keystores, are those of the snapshot before.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select, union

from holdfast.keys.model import ExternalKey, Keystore
from holdfast.secrets.errors import ReferenceRefused, SecretError
from holdfast.secrets.reference import SecretReference
from holdfast.store import rows, schema
from holdfast.store.database import MAX_VERSION
from holdfast.store.entries import CREDENTIAL, KEY, KEYSTORE
from holdfast.store.errors import NoVersion
from holdfast.store.integrity import Comparison, Fetched, sentences
from holdfast.store.rows import BadRow, raw
from holdfast.xks.types import AccessKeyId, KeyStatus, SecretAccessKey

ReadSecret = Callable[[AccessKeyId, SecretReference], SecretAccessKey]
"""The secret of a credential. Raises CatalogError."""


class States(NamedTuple):
    """What every look at the catalog reads: two small queries. `blocked` and `ends` are by the keystore's row.

    `version` 0: the catalog's own row is missing or wrong. A block that is not in `ends` has none.
    """

    version: int
    removed: int
    blocked: dict[int, bool]
    ends: dict[int, datetime]


@dataclass(slots=True)
class _Shelf:
    """The keys of one keystore, by external key id; those that cannot be used with the reason."""

    keys: dict[str, ExternalKey] = field(default_factory=dict)
    faulty: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """An external key before and after a refresh; None: there was or is none that can be used."""

    keystore: int
    external_key_id: str
    before: ExternalKey | None
    after: ExternalKey | None


class View:
    """The keystores as of `version`, from 0: nothing was read yet. Used by one thread.

    `compares` False: as the rows say, before there is a record of them.
    """

    def __init__(self, *, compares: bool = True) -> None:
        self._compares = compares
        self.version = 0
        self.states = States(0, 0, {}, {})
        self.keystores: dict[int, Keystore] = {}
        self.live: frozenset[str] = frozenset()
        """The access key ids of the live credentials, also of those whose secret cannot be read."""
        self.unreadable: tuple[str, ...] = ()
        self.rows_read = 0
        """Rows of keys and generations that were fetched so far: the work that refreshing has made."""
        self.disabled: set[tuple[int, str]] = set()
        """The keys that are disabled, by keystore row and external key id."""
        self.stopped: dict[tuple[int, str], dict[int, str]] = {}
        """The keys with stopped generations: their numbers, and why."""
        self.withheld: dict[tuple[int, str], dict[int, str]] = {}
        """The keys with generations that were taken out of use: their numbers and states."""
        self.owners: dict[int, tuple[int, str, int]] = {}
        """Whose each generation's row is: keystore row, external key id, number."""
        self.comparison = Comparison()
        """What in the catalog no record explains; of this the stricter side is what the keystores here have."""
        self._names: dict[str, str] = {}
        self._shelves: dict[int, _Shelf] = {}
        self._places: dict[Any, tuple[int, str]] = {}
        self._key_faults: dict[Any, str] = {}
        self._other_faults: list[str] = []
        self._orphans: list[str] = []
        self._secrets: dict[tuple[str, str], SecretAccessKey] = {}
        self._unreadable_of: Counter[int] = Counter()

    @property
    def bad_rows(self) -> tuple[str, ...]:
        """The rows that are wrong, in words, and what stands still because of them."""
        return (*self._other_faults, *self._orphans, *self._key_faults.values())

    @property
    def unexplained(self) -> tuple[str, ...]:
        """What no record explains, in words."""
        return sentences(self.comparison.deviations.values(), self.comparison.mismatch, self._names)

    def refresh(
        self, connection: Connection, read_secret: ReadSecret, pulse: Callable[[], None] = lambda: None
    ) -> list[Difference]:
        """Read what changed since `version`; the keys that differ. Raises NoVersion, and then nothing changed.

        `pulse` is called now and then while much is read.
        """
        states = read_states(connection)
        if not states.version:
            raise NoVersion
        keystores = list(connection.execute(select(*_KEYSTORE)))
        credentials = list(connection.execute(_LIVE_CREDENTIALS))
        whole = self.version == 0 or states.removed > self.version or states.version < self.version
        touched = [] if whole else _ids(connection, self.version)
        if not whole and not touched and states.version != self.version:
            # No key says that it changed. Either a keystore or credential did, or a person changed rows by hand.
            whole = not _others_changed(connection, self.version)
        whole = whole or self.comparison.mismatch is not None
        fetched = self._fetch_keys(connection, None if whole else touched, pulse)
        if self._compares:
            self._names = {str(row.id): rows.plain(row.name) for row in keystores}
            read = {
                KEYSTORE.name: [(row, []) for row in keystores],
                CREDENTIAL.name: [(row, []) for row in credentials],
                KEY.name: fetched,
            }
            served = self.comparison.stricter(connection, read, whole=whole, pulse=pulse)
            keystores = [row for row, _ in served[KEYSTORE.name]]
            credentials = [row for row, _ in served[CREDENTIAL.name]]
            fetched = served[KEY.name]
        first = self.version == 0
        self.version = 0  # whatever goes wrong from here on: the next refresh reads everything
        self._other_faults = []
        differences = self._take_whole(fetched, pulse) if whole else self._take_touched(fetched)
        self._take_keystores(keystores, self._live(credentials, read_secret))
        self._name_orphans({row.id for row in keystores})
        self.version, self.states = states.version, states
        return [] if first else sorted(differences, key=lambda one: (one.keystore, one.external_key_id))

    def _take_whole(self, fetched: Fetched, pulse: Callable[[], None]) -> list[Difference]:
        old, self._shelves = self._shelves, {}
        self._places, self._key_faults, self.owners = {}, {}, {}
        self.disabled, self.stopped, self.withheld = set(), {}, {}
        while fetched:  # emptied on the way: to free everything at once would hold the interpreter's lock
            if not len(fetched) % _BREATH:
                pulse()
            self._take_key(*fetched.pop(), lambda identity: self._shelves.setdefault(identity, _Shelf()), old)
        return [
            difference
            for identity in old.keys() | self._shelves.keys()
            for difference in self._settle(identity, old.get(identity, _EMPTY), names=None)
        ]

    def _take_touched(self, fetched: Fetched) -> list[Difference]:
        old: dict[int, _Shelf] = {}

        def shelf_of(identity: int) -> _Shelf:
            if identity not in old:
                old[identity] = own = self._shelves.get(identity, _EMPTY)
                self._shelves[identity] = _Shelf(own.keys.copy(), own.faulty.copy())
            return self._shelves[identity]

        touched: dict[int, set[str]] = {}
        for row, _ in fetched:
            self._key_faults.pop(row.id, None)
            place = self._places.pop(row.id, None)
            if place is not None:
                shelf = shelf_of(place[0])
                before = shelf.keys.pop(place[1], None)
                for generation in () if before is None else before.generations.values():
                    self.owners.pop(generation.id, None)
                shelf.faulty.pop(place[1], None)
                self.disabled.discard(place)
                self.stopped.pop(place, None)
                self.withheld.pop(place, None)
                touched.setdefault(place[0], set()).add(place[1])
        for row, generations in fetched:
            self._take_key(row, generations, shelf_of, old)
            if row.id in self._places:
                identity, name = self._places[row.id]
                touched.setdefault(identity, set()).add(name)
        return [
            difference
            for identity, names in touched.items()
            for difference in self._settle(identity, old[identity], names)
        ]

    def _take_key(
        self,
        row: Row[Any],
        generations: list[Row[Any]],
        shelf_of: Callable[[int], _Shelf],
        old: Mapping[int, _Shelf],
    ) -> None:
        place: tuple[int, str] | None = None
        try:
            place = rows.integer(row.keystore_id, "keystore_id"), rows.external_key_id(row).value
            self._places[row.id] = place
            key = rows.external_key(row, place[1], generations)
        except BadRow as reason:
            said = f"the key {rows.plain(row.external_key_id)} (external_keys row {rows.shown(row.id)}) is refused"
            self._key_faults[row.id] = f"{said}: {reason}"
            if place is not None:
                shelf_of(place[0]).faulty[place[1]] = str(reason)
            return
        shelf = shelf_of(place[0])
        before = old.get(place[0], _EMPTY).keys.get(place[1])
        # One object for what is the same: the old snapshot's then need not be freed, nor the new one kept.
        shelf.keys[place[1]] = before if before == key else key
        if key.status is KeyStatus.DISABLED:
            self.disabled.add(place)
        for number, generation in key.generations.items():
            self.owners[generation.id] = (*place, number)
            if generation.stopped is not None:
                self.stopped.setdefault(place, {})[number] = generation.stopped
            if generation.state.withheld:
                self.withheld.setdefault(place, {})[number] = generation.state.value

    def _settle(self, identity: int, old: _Shelf, names: Iterable[str] | None) -> list[Difference]:
        """The keys of a keystore that differ, of these or of all. Without any, the old shelf stays."""
        new = self._shelves.get(identity, _EMPTY)
        found = [
            Difference(identity, name, old.keys.get(name), new.keys.get(name))
            for name in (old.keys.keys() | new.keys.keys() if names is None else names)
            if old.keys.get(name) is not new.keys.get(name)
        ]
        if not found and old.faulty == new.faulty and old is not _EMPTY:
            self._shelves[identity] = old
        return found

    def _fetch_keys(self, connection: Connection, touched: list[int] | None, pulse: Callable[[], None]) -> Fetched:
        """Each key's row with those of its generations; of the keys in these rows, or of all."""
        fetched: Fetched = []
        orphans = []
        for chunk in _chunks(touched):
            keys, generations = select(*_KEY), select(*_GENERATION).order_by(schema.key_generations.c.id)
            if chunk is not None:
                keys = keys.where(schema.external_keys.c.id.in_(chunk))
                generations = generations.where(schema.key_generations.c.key_id.in_(chunk))
            own: dict[Any, list[Row[Any]]] = {}
            for row in connection.execute(generations):
                self.rows_read += 1
                own.setdefault(row.key_id, []).append(row)
                if not self.rows_read % _BREATH:
                    pulse()
            for row in connection.execute(keys):
                self.rows_read += 1
                fetched.append((row, own.pop(row.id, [])))
                if not self.rows_read % _BREATH:
                    pulse()
            orphans += [
                f"the generation in row {rows.shown(row.id)} is not used: there is no key {rows.shown(key_id)}"
                for key_id, left in own.items()
                for row in left
            ]
        if touched is None:
            self._orphans = orphans
        return fetched

    def _live(self, found: Iterable[Row[Any]], read_secret: ReadSecret) -> dict[int, dict[str, SecretAccessKey]]:
        """The live credentials' secrets by keystore. A secret that was read once is not read again.

        Its file is never rewritten, its reference never changes.
        """
        secrets: dict[int, dict[str, SecretAccessKey]] = {}
        kept: dict[tuple[str, str], SecretAccessKey] = {}
        live, unreadable = [], []
        self._unreadable_of = Counter()
        for row in found:
            said = f"the credential {rows.plain(row.access_key_id)} is refused"
            try:
                identity, keystore, text = rows.credential(row)
                reference = SecretReference.parse(text)
                live.append(identity.value)
                place = (identity.value, text)
                kept[place] = self._secrets.get(place) or read_secret(identity, reference)
                secrets.setdefault(keystore, {})[identity.value] = kept[place]
            except (BadRow, ReferenceRefused) as reason:
                self._other_faults.append(f"{said}: {reason}")
            except SecretError as error:
                unreadable.append(f"{said} until its secret can be read: {error}")
                self._unreadable_of[row.keystore_id] += 1
        self._secrets = kept  # a retired credential's secret is forgotten
        self.live, self.unreadable = frozenset(live), tuple(unreadable)
        return secrets

    def _take_keystores(self, found: list[Row[Any]], secrets: dict[int, dict[str, SecretAccessKey]]) -> None:
        old, self.keystores = self.keystores, {}
        for row in found:
            if type(row.id) is not int:
                self._other_faults.append(f"a keystore's row is not used: id is {rows.shown(row.id)}")
                continue
            shelf = self._shelves.get(row.id, _EMPTY)
            made = self._keystore(row, shelf, secrets.get(row.id, {}))
            if made is not None:
                before = old.get(row.id)
                self.keystores[row.id] = before if before is not None and _same(before, made) else made

    def _keystore(self, row: Row[Any], shelf: _Shelf, secrets: dict[str, SecretAccessKey]) -> Keystore | None:
        """The keystore; blocked where its row is wrong, None if its path prefix is not known."""
        said = f"the keystore {rows.plain(row.name)} (keystores row {row.id})"
        try:
            prefix = rows.prefix(row)
        except BadRow as reason:
            self._other_faults.append(f"{said} is not served: {reason}")
            return None
        name, region, blocked = f"row-{row.id}", None, True
        try:
            name = rows.keystore_name(row)
            region = rows.region(row)
            blocked = rows.boolean(row.blocked, "blocked")
        except BadRow as reason:
            self._other_faults.append(f"{said} is blocked: {reason}")
        return Keystore(
            name,
            prefix,
            blocked,
            region,
            secrets,
            shelf.keys,
            shelf.faulty,
            self._unreadable_of[row.id],
            # A wrong end is none: the block stays.
            rows.moment(row.blocked_until) if blocked else None,
        )

    def _name_orphans(self, keystores: set[Any]) -> None:
        for identity in sorted(self._shelves.keys() - keystores):
            count = len(self._shelves[identity].keys)
            if count:
                self._other_faults.append(
                    f"there is no keystore in row {identity}; its keys, which are not served: {count}"
                )


def read_states(connection: Connection) -> States:
    """The version, and which keystores are blocked; these also where the catalog's own row is wrong."""
    row = connection.execute(select(*raw(schema.catalog, "version", "removed"))).first()
    right = row is not None and type(row.version) is type(row.removed) is int and 1 <= row.version <= MAX_VERSION
    blocked, ends = {}, {}
    for found in connection.execute(select(*raw(schema.keystores, "id", "blocked", "blocked_until"))):
        if type(found.id) is int:
            blocked[found.id] = not rows.is_false(found.blocked)
            end = rows.moment(found.blocked_until)
            if end is not None:
                ends[found.id] = end
    version, removed = (row.version, row.removed) if row is not None and right else (0, 0)
    return States(version, removed, blocked, ends)


_EMPTY = _Shelf()
_KEYSTORE = raw(schema.keystores, *rows.KEYSTORE)
_LIVE_CREDENTIALS = select(*raw(schema.credentials, *rows.CREDENTIAL)).where(
    schema.credentials.c.retired_at.is_(None)
)
_KEY = raw(schema.external_keys, "id", "keystore_id", *rows.EXTERNAL_KEY)
_GENERATION = raw(schema.key_generations, *rows.GENERATION)
_BREATH = 1_000
"""Rows after which `pulse` is called."""
_CHUNK = 500
"""Rows asked for by their ids in one query: SQLite takes 999 parameters in its older builds."""


def _chunks(ids: list[int] | None) -> Iterator[list[int] | None]:
    if ids is None:
        yield None
    else:
        yield from (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))


def _ids(connection: Connection, version: int) -> list[int]:
    """The rows of the keys that changed after a version, themselves or in a generation."""
    key, generation = schema.external_keys, schema.key_generations
    changed = union(
        select(key.c.id).where(key.c.changed > version),
        select(generation.c.key_id).where(generation.c.changed > version),
    )
    return [identity for identity in connection.execute(changed).scalars() if type(identity) is int]


def _others_changed(connection: Connection, version: int) -> bool:
    return any(
        connection.execute(select(table.c.changed).where(table.c.changed > version).limit(1)).first() is not None
        for table in (schema.keystores, schema.credentials)
    )


def _same(before: Keystore, after: Keystore) -> bool:
    """Whether a keystore is what it was; its keys are compared as the dictionaries that they are kept in."""
    return (
        before.keys is after.keys
        and before.faulty is after.faulty
        and _apart_from_keys(before) == _apart_from_keys(after)
    )


def _apart_from_keys(keystore: Keystore) -> tuple[object, ...]:
    return (
        keystore.name,
        keystore.prefix,
        keystore.blocked,
        keystore.blocked_until,
        keystore.region,
        keystore.credentials,
        keystore.unreadable,
    )
