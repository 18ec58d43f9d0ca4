"""Writes to the catalog what the HSM threads find out about keys, on a separate thread."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from queue import Empty, SimpleQueue
from threading import Lock

from holdfast.catalog.errors import CatalogError
from holdfast.catalog.snapshot import Generation, Snapshot
from holdfast.catalog.store import Catalog
from holdfast.ekm.pkcs11.backend import Pkcs11Hsm
from holdfast.ekm.port import CanaryKeeper, KeyLocator
from holdfast.threads import LivingThread

_TURN = 0.5
"""Seconds between two looks at the snapshot, and between two attempts to write what could not be written."""
_NAMED = 5
"""Keys named in one message."""


class _Permit(Enum):
    ASKED = auto()
    GRANTED = auto()
    """Its encryption is counted in the catalog, and is to be made."""
    SETTLED = auto()
    """Made, or never to be made: the key has reached its limit of encryptions."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    hsm: str
    key: KeyLocator


@dataclass(frozen=True, slots=True)
class _Canary:
    hsm: str
    key: KeyLocator
    canary: bytes


@dataclass(frozen=True, slots=True)
class _Stop:
    hsm: str
    key: KeyLocator
    reason: str


class KeyRecords:
    """Canaries of keys that were registered without one, and stops for unsafe IVs.

    What cannot be written is kept and tried again; a stop is then in force in this process alone. `recorded` are the
    keys that the catalog holds as stopped, by HSM. `stop` is the limit of encryptions under a key (None: no limit):
    a canary is counted before it is made, and never made over the limit. `on_notice` and `on_warning` get sentences
    for the operator.
    """

    def __init__(
        self,
        catalog: Catalog,
        snapshot: Callable[[], Snapshot],
        *,
        stop: int | None,
        on_notice: Callable[[str], None],
        on_warning: Callable[[str], None],
    ) -> None:
        self.recorded: dict[str, dict[KeyLocator, str]] = {}
        self._catalog = catalog
        self._snapshot = snapshot
        self._hsms: Mapping[str, Pkcs11Hsm] = {}
        self._limit = stop
        self._permits: dict[tuple[str, KeyLocator], _Permit] = {}
        self._permits_lock = Lock()
        self._on_notice = on_notice
        self._on_warning = on_warning
        self._queue: SimpleQueue[_Wanted | _Canary | _Stop | None] = SimpleQueue()
        self._waiting: list[_Wanted | _Canary | _Stop] = []
        self._written: list[tuple[_Stop, int]] = []
        self._totals: dict[int, int] | None = None
        self._seen_version = -1
        self._stopping = False
        self.thread = LivingThread("key-records", self._run, on_failure=on_warning)

    # ---- called by HSM threads and the event loop

    def keeper(self, hsm: str) -> CanaryKeeper:
        """The keeper of one HSM's canaries."""
        return _Keeper(self, hsm)

    def may_make(self, hsm: str, key: KeyLocator) -> bool | None:
        """As `CanaryKeeper.may_make`."""
        place = hsm, key
        with self._permits_lock:
            permit = self._permits.get(place)
            if permit is None:
                self._permits[place] = _Permit.ASKED
                self._queue.put(_Wanted(hsm, key))
            elif permit is _Permit.GRANTED:
                self._permits[place] = _Permit.SETTLED
        return None if permit in (None, _Permit.ASKED) else permit is _Permit.GRANTED

    def canary_failed(self, hsm: str, key: KeyLocator) -> None:
        """As `CanaryKeeper.failed`."""
        with self._permits_lock:
            self._permits.pop((hsm, key), None)

    def canary_made(self, hsm: str, key: KeyLocator, canary: bytes) -> None:
        """A key without a canary has one now."""
        self._queue.put(_Canary(hsm, key, canary))

    def key_stopped(self, hsm: str, key: KeyLocator, reason: str) -> None:
        """A worker of this proxy has stopped the key."""
        self._queue.put(_Stop(hsm, key, reason))

    # ---- life

    def start(self, hsms: Mapping[str, Pkcs11Hsm]) -> None:
        """Write what the HSMs find out."""
        self._hsms = hsms
        self.thread.start()

    def stop(self) -> None:
        """Write what is waiting, once, and end."""
        self._stopping = True
        self._queue.put(None)
        self.thread.join()

    # ---- the thread

    def _run(self) -> None:
        while True:
            self._take()
            snapshot = self._snapshot()
            if snapshot.version != self._seen_version:
                self._seen_version = snapshot.version
                self._follow(snapshot)
            if self._waiting:
                self._write(snapshot)
            if self._stopping:
                return

    def _take(self) -> None:
        """Wait for a finding, at most a turn, and take those that came with it."""
        try:
            finding = self._queue.get(timeout=_TURN)
            while True:
                if finding is not None:
                    self._waiting.append(finding)
                finding = self._queue.get_nowait()
        except Empty:
            return

    def _write(self, snapshot: Snapshot) -> None:
        waiting, self._waiting = self._waiting, []
        self._totals = None
        places = _places(_generations(snapshot), {(finding.hsm, finding.key) for finding in waiting})
        named: list[str] = []
        for finding in waiting:
            try:
                place = places[finding.hsm, finding.key]
                match finding:
                    case _Wanted():
                        self._permit(finding, [generation for _, generation in place])
                    case _Canary():
                        named += [name for name, generation in place if self._write_canary(generation, finding)]
                    case _Stop():
                        for _, generation in place:
                            self._catalog.stop_generation(generation.id, finding.reason)
                        self._written.append((finding, self._catalog.version()))
            except CatalogError as error:
                self._waiting.append(finding)
                what = "stopped in this proxy alone" if isinstance(finding, _Stop) else "still without a canary"
                self._on_warning(
                    f"the key {finding.key.label!r} is {what} until the catalog answers: {error.message}"
                )
        if named:
            shown = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
            self._on_notice(f"canaries were made for keys that were registered without one: {shown}")
        if self._waiting and not self._stopping:
            time.sleep(_TURN)

    def _permit(self, wanted: _Wanted, generations: list[Generation]) -> None:
        """Count the canary's encryption, unless the key has reached its limit or another worker was faster."""
        lacking = [generation for generation in generations if generation.canary is None]
        permit = _Permit.SETTLED
        if lacking:
            if self._totals is None:
                self._totals = self._catalog.encryption_totals()
            if self._limit is None or all(self._totals.get(one.id, 0) < self._limit for one in lacking):
                self._catalog.reserve({lacking[0].id: 1})
                permit = _Permit.GRANTED
        with self._permits_lock:
            self._permits[wanted.hsm, wanted.key] = permit

    def _write_canary(self, generation: Generation, made: _Canary) -> bool:
        serial = self._hsms[made.hsm].token_serial()
        if serial and generation.token_serial != serial:
            self._catalog.record_token_serial(generation.id, serial)
        return generation.canary is None and self._catalog.record_canary(generation.id, made.canary)

    def _follow(self, snapshot: Snapshot) -> None:
        """Take over what the catalog says of stops and of keys that are not registered any more."""
        recorded: dict[str, dict[KeyLocator, str]] = {}
        registered: dict[str, set[KeyLocator]] = {name: set() for name in self._hsms}
        for _, generation in _generations(snapshot):
            key = KeyLocator(generation.label, generation.cka_id)
            if generation.hsm in registered:
                registered[generation.hsm].add(key)
            if generation.stopped is not None:
                recorded.setdefault(generation.hsm, {})[key] = generation.stopped
        self.recorded = recorded
        for name, hsm in self._hsms.items():
            hsm.retain_keys(registered[name])
        # From now on the catalog decides: a person may have released the key already.
        for stop, version in [written for written in self._written if written[1] <= snapshot.version]:
            self._hsms[stop.hsm].release_key(stop.key)
            self._written.remove((stop, version))


@dataclass(frozen=True, slots=True)
class _Keeper:
    """One HSM's part of KeyRecords."""

    records: KeyRecords
    hsm: str

    def may_make(self, key: KeyLocator) -> bool | None:
        """As `CanaryKeeper.may_make`."""
        return self.records.may_make(self.hsm, key)

    def made(self, key: KeyLocator, canary: bytes) -> None:
        """As `CanaryKeeper.made`."""
        self.records.canary_made(self.hsm, key, canary)

    def failed(self, key: KeyLocator) -> None:
        """As `CanaryKeeper.failed`."""
        self.records.canary_failed(self.hsm, key)


def _generations(snapshot: Snapshot) -> Iterable[tuple[str, Generation]]:
    """Every generation of every key, with the key's name for people."""
    for keystore in snapshot.keystores.values():
        for key in keystore.keys.values():
            for generation in key.generations.values():
                yield f"{keystore.name}/{key.external_key_id}", generation


def _places(
    generations: Iterable[tuple[str, Generation]], wanted: set[tuple[str, KeyLocator]]
) -> dict[tuple[str, KeyLocator], list[tuple[str, Generation]]]:
    """The generations behind each of some HSM keys: several key stores may share one."""
    places: dict[tuple[str, KeyLocator], list[tuple[str, Generation]]] = {place: [] for place in wanted}
    for name, generation in generations:
        place = (generation.hsm, KeyLocator(generation.label, generation.cka_id))
        if place in places:
            places[place].append((name, generation))
    return places
