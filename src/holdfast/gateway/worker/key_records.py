"""Writes to the catalog what the HSM threads find out about keys, on a separate thread."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock
from typing import NamedTuple

from holdfast.gateway.worker.readiness import ReadyGeneration
from holdfast.hsm.pkcs11.backend import Pkcs11Hsm
from holdfast.hsm.port import CanaryKeeper, KeyLocator
from holdfast.keys.model import ExternalKey, Generation, Snapshot
from holdfast.keys.states import GenerationState
from holdfast.store.errors import CatalogError
from holdfast.store.store import Catalog
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
class _Found:
    hsm: str
    key: KeyLocator
    ready: ReadyGeneration
    fault: str | None


@dataclass(frozen=True, slots=True)
class _Stop:
    hsm: str
    key: KeyLocator
    reason: str


_Finding = _Wanted | _Canary | _Found | _Stop


class _User(NamedTuple):
    """A generation that is kept in an HSM key."""

    prefix: str
    external_key_id: str
    generation: Generation

    @property
    def identity(self) -> tuple[str, str, int]:
        """The same before and after a change of the generation."""
        return self.prefix, self.external_key_id, self.generation.id


class KeyRecords:
    """Canaries of keys that were registered without one, stops for unsafe IVs, and keys that are to encrypt next.

    What cannot be written is kept and tried again; a stop is then in force in this process alone. `recorded` are the
    keys that the catalog holds as stopped, by HSM. `stop` is the limit of encryptions under a key (None: no limit):
    a canary is counted before it is made, and never made over the limit. `ready` are the generations whose HSM keys
    are to be looked for: those in that state, and those that were activated while this node did not hear of it.
    `worker` is this process's place among those of the proxy `proxy_id`. `on_notice` and `on_warning` get sentences
    for the operator.
    """

    def __init__(  # noqa: PLR0913 (what one worker gives it)
        self,
        catalog: Catalog,
        snapshot: Callable[[], Snapshot],
        *,
        stop: int | None,
        proxy_id: str,
        worker: int,
        on_notice: Callable[[str], None],
        on_warning: Callable[[str], None],
    ) -> None:
        self.recorded: dict[str, dict[KeyLocator, str]] = {}
        self.ready: frozenset[ReadyGeneration] = frozenset()
        self._ready: dict[int, ReadyGeneration] = {}
        self._generations: set[int] = set()
        """All that were followed, by their rows."""
        self._proxy_id = proxy_id
        self._worker = worker
        self._catalog = catalog
        self._snapshot = snapshot
        self._hsms: Mapping[str, Pkcs11Hsm] = {}
        self._limit = stop
        self._permits: dict[tuple[str, KeyLocator], _Permit] = {}
        self._permits_lock = Lock()
        self._on_notice = on_notice
        self._on_warning = on_warning
        self._queue: SimpleQueue[_Finding | None] = SimpleQueue()
        self._waiting: deque[_Finding] = deque()
        self._written: list[tuple[_Stop, int]] = []
        self._seen: Snapshot | None = None
        self._followed: dict[str, Mapping[str, ExternalKey]] = {}
        self._users: dict[str, dict[KeyLocator, tuple[_User, ...]]] = {}
        """By HSM and key: several keystores may share one."""
        self._prune = 0
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

    def generation_found(self, ready: ReadyGeneration, fault: str | None) -> None:
        """This worker has opened the canary of a ready generation, or not."""
        self._queue.put(_Found(ready.hsm, ready.key, ready, fault))

    def is_new(self, generation: Generation) -> bool:
        """Whether a rotation brought this generation after this worker's start, and its HSM key is not found yet.

        The first one of a key comes with the key: what it lacks is told at once, and doctor says what to do.
        """
        if generation.id in self._ready:
            return True
        return generation.number > 1 and self._seen is not None and generation.id not in self._generations

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
            if snapshot is not self._seen:
                self._follow(snapshot)
                self._seen = snapshot
            if self._prune:
                self._prune -= 1
                for name, hsm in self._hsms.items():
                    hsm.retain_keys(partial(self._is_registered, name))
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
        named: list[str] = []
        failed: list[_Finding] = []
        try:
            # Taken one by one: a mistake in one of them must not lose the others.
            while self._waiting:
                finding = self._waiting.popleft()
                try:
                    named += self._write_one(finding, snapshot)
                except CatalogError as error:
                    failed.append(finding)
                    self._on_warning(
                        f"the key {finding.key.label!r} is {_UNWRITTEN[type(finding)]} until the catalog answers:"
                        f" {error.message}"
                    )
        finally:
            self._waiting.extendleft(reversed(failed))
        if named:
            shown = ", ".join(named[:_NAMED]) + (f" and {len(named) - _NAMED} more" if len(named) > _NAMED else "")
            self._on_notice(f"canaries were made for keys that were registered without one: {shown}")
        if self._waiting and not self._stopping:
            time.sleep(_TURN)

    def _write_one(self, finding: _Finding, snapshot: Snapshot) -> list[str]:
        """Write a finding; the names of the keys that have a canary by it. Raises CatalogError."""
        users = self._users.get(finding.hsm, {}).get(finding.key, ())
        match finding:
            case _Wanted():
                self._permit(finding, [user.generation for user in users])
            case _Canary():
                return [
                    f"{snapshot.keystores[user.prefix].name}/{user.external_key_id}"
                    for user in users
                    if self._write_canary(user.generation, finding)
                ]
            case _Found():
                self._catalog.report_generation(
                    finding.ready.id,
                    proxy_id=self._proxy_id,
                    worker=self._worker,
                    looks=finding.ready.looks,
                    fault=finding.fault,
                )
                if finding.fault is None and self._ready.get(finding.ready.id) == finding.ready:
                    del self._ready[finding.ready.id]
            case _Stop():
                for user in users:
                    self._catalog.stop_generation(user.generation.id, finding.reason)
                if users:
                    self._written.append((finding, self._catalog.version()))
        return []

    def _permit(self, wanted: _Wanted, generations: list[Generation]) -> None:
        """Count the canary's encryption, unless the key has reached its limit or another worker was faster."""
        lacking = [generation for generation in generations if generation.canary is None]
        permit = _Permit.SETTLED
        if lacking:
            totals = self._catalog.encryption_totals([one.id for one in lacking])
            if self._limit is None or all(totals.get(one.id, 0) < self._limit for one in lacking):
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
        """Take over what the catalog says of stops and of keys that are not registered any more.

        Snapshots share the keys that have not changed, so only the others are looked at.
        """
        changed: set[tuple[str, KeyLocator]] = set()
        for prefix in self._followed.keys() | snapshot.keystores.keys():
            keystore = snapshot.keystores.get(prefix)
            old = self._followed.get(prefix, {})
            new: Mapping[str, ExternalKey] = {} if keystore is None else keystore.keys
            if old is not new:
                for name in [name for name in old.keys() | new.keys() if old.get(name) is not new.get(name)]:
                    changed |= self._exchange(prefix, old.get(name), new.get(name))
            if keystore is None:
                del self._followed[prefix]
            else:
                self._followed[prefix] = new
        self._note_stops(changed)
        self.ready = frozenset(self._ready.values())
        if changed:
            # Twice: a request or a probe that was under way may still bring back what was forgotten.
            self._prune = 2
        # From now on the catalog decides: a person may have released the key already.
        for stop, version in [written for written in self._written if written[1] <= snapshot.version]:
            self._hsms[stop.hsm].release_key(stop.key)
            self._written.remove((stop, version))

    def _exchange(self, prefix: str, old: ExternalKey | None, new: ExternalKey | None) -> set[tuple[str, KeyLocator]]:
        """Replace an external key; the HSM keys that are concerned."""
        changed = set()
        # Of a new external key the operator is told to reload (docs/how-to/nshield.md, step 7).
        was = old or new
        known = set() if was is None else {one.id for one in was.generations.values() if one.state.decrypts}
        sought = known & self._ready.keys()
        for key, add in ((old, False), (new, True)):
            if key is None:
                continue
            for generation in key.generations.values():
                place = KeyLocator(generation.label, generation.cka_id)
                self._ready.pop(generation.id, None)
                self._generations.discard(generation.id)
                if add:
                    self._generations.add(generation.id)
                    is_new = generation.id not in known or generation.id in sought
                    if generation.state is GenerationState.READY or (generation.state.decrypts and is_new):
                        locator = KeyLocator(generation.label, generation.cka_id, generation.canary)
                        self._ready[generation.id] = ReadyGeneration(
                            generation.id, generation.looks, generation.hsm, locator
                        )
                users = self._users.setdefault(generation.hsm, {})
                user = _User(prefix, key.external_key_id, generation)
                left = tuple(one for one in users.get(place, ()) if one.identity != user.identity)
                if add:
                    left = (*left, user)
                if left:
                    users[place] = left
                else:
                    users.pop(place, None)
                changed.add((generation.hsm, place))
        return changed

    def _is_registered(self, hsm: str, key: KeyLocator) -> bool:
        """A canary that is not in the catalog yet is not another one than the catalog's."""
        canaries = [user.generation.canary for user in self._users.get(hsm, {}).get(key, ())]
        return bool(canaries) and (key.canary is None or None in canaries or key.canary in canaries)

    def _note_stops(self, changed: set[tuple[str, KeyLocator]]) -> None:
        recorded = {hsm: keys.copy() for hsm, keys in self.recorded.items()}
        for hsm, key in changed:
            recorded.setdefault(hsm, {}).pop(key, None)
            for user in self._users[hsm].get(key, ()):
                if user.generation.stopped is not None:
                    recorded[hsm][key] = user.generation.stopped
        self.recorded = recorded  # exchanged, never changed: the event loop reads it


_UNWRITTEN: dict[type[_Finding], str] = {
    _Wanted: "still without a canary",
    _Canary: "still without a canary",
    _Found: "not reported as found or missing",
    _Stop: "stopped in this proxy alone",
}


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
