"""What a worker writes to the catalog of its keys, and what it costs to follow the catalog."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, cast

import pytest
from tests.administered import Catalog
from tests.store.conftest import now
from tests.store.samples import KEY, OTHER_KEY, PREFIX
from tests.waiting import eventually

from holdfast.gateway.worker import key_records
from holdfast.gateway.worker.key_records import KeyRecords
from holdfast.hsm.port import KeyLocator
from holdfast.keys.model import ExternalKey, Generation, Keystore, Snapshot
from holdfast.keys.proof import Proof
from holdfast.keys.states import GenerationState, Step
from holdfast.store import rotation
from holdfast.xks.types import ExternalKeyId, UriPathPrefix

if TYPE_CHECKING:
    from holdfast.hsm.pkcs11.backend import Pkcs11Hsm

FIRST, SECOND = KeyLocator("first"), KeyLocator("second")


class Hsm:
    """Notes what KeyRecords asks of an HSM."""

    def __init__(self) -> None:
        self.released: list[KeyLocator] = []
        self.known = {FIRST, KeyLocator("second", canary=b"replaced")}

    def token_serial(self) -> str:
        """Not known."""
        return ""

    def release_key(self, key: KeyLocator) -> None:
        """As `Pkcs11Hsm.release_key`."""
        self.released.append(key)

    def retain_keys(self, is_registered: Callable[[KeyLocator], bool]) -> None:
        """As `Pkcs11Hsm.retain_keys`."""
        self.known = {key for key in self.known if is_registered(key)}


class Counted(dict[str, ExternalKey]):
    """Keys that count how often all of them are walked through."""

    walks = 0

    def keys(self):  # type: ignore[no-untyped-def] # noqa: ANN201 (dict's own)
        """As of a dict."""
        self.walks += 1
        return super().keys()


class Setting:
    """A catalog with one key in each of two keystores, and the snapshot that KeyRecords sees."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.hsm = Hsm()
        self.said: list[str] = []
        for name, prefix, key, label in (("main", PREFIX, KEY, "first"), ("other", OTHER, OTHER_KEY, "second")):
            catalog.create_keystore(name, prefix)
            catalog.register_key(name, key, hsm="main", label=label)
        self.latest = catalog.snapshot()
        self.records = KeyRecords(
            catalog,
            lambda: self.latest,
            stop=None,
            proxy_id="proxy",
            worker=0,
            on_notice=self.said.append,
            on_warning=self.said.append,
        )

    def start(self) -> None:
        """Begin to follow."""
        self.records.start({"main": cast("Pkcs11Hsm", self.hsm)})

    def keystore(self, prefix: UriPathPrefix = PREFIX) -> Keystore:
        """A keystore of the latest snapshot."""
        return self.latest.keystores[prefix.value]


OTHER = UriPathPrefix.parse("/other")


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    monkeypatch.setattr(key_records, "_TURN", 0.01)
    with closing(Catalog.create_or_upgrade(f"sqlite:///{tmp_path}/c.db", tmp_path / "s", now=now)) as catalog:
        yield Setting(catalog)


def test_keys_that_have_not_changed_are_not_walked_through_again(setting: Setting) -> None:
    counted = Counted(setting.keystore(OTHER).keys)
    latest = setting.latest
    keystores = {**latest.keystores, OTHER.value: replace(setting.keystore(OTHER), keys=counted)}
    setting.latest = replace(latest, keystores=keystores)
    setting.start()
    eventually(lambda: counted.walks > 0)
    walks = counted.walks
    setting.catalog.stop_generation(setting.keystore().keys[KEY.value].active.id, "by a test")
    fresh = setting.catalog.snapshot()
    setting.latest = replace(fresh, keystores={**keystores, PREFIX.value: fresh.keystores[PREFIX.value]})
    eventually(lambda: setting.records.recorded == {"main": {FIRST: "by a test"}})
    setting.records.stop()
    assert counted.walks == walks


def test_a_stop_is_written_for_each_generation_that_the_key_holds(setting: Setting) -> None:
    setting.start()
    setting.records.key_stopped("main", SECOND, "by a test")
    setting.records.stop()
    assert setting.catalog.snapshot().keystores[OTHER.value].keys[OTHER_KEY.value].active.stopped == "by a test"


def test_the_catalog_decides_on_a_stop_only_once_it_holds_it(setting: Setting) -> None:
    """A key that no keystore names at present stays stopped in this process."""
    setting.start()
    setting.records.key_stopped("main", KeyLocator("unknown"), "by a test")
    setting.records.key_stopped("main", FIRST, "by a test")
    eventually(lambda: setting.catalog.snapshot().keystores[PREFIX.value].keys[KEY.value].active.stopped is not None)
    setting.latest = setting.catalog.snapshot()
    eventually(lambda: FIRST in setting.hsm.released)
    setting.records.stop()
    assert setting.hsm.released == [FIRST]


def test_a_finding_that_cannot_be_processed_loses_no_other(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    write, failed = setting.catalog.stop_generation, Event()

    def fail_once(generation_id: int, reason: str) -> bool:
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError
        return write(generation_id, reason)

    monkeypatch.setattr(setting.catalog, "stop_generation", fail_once)
    for key in (FIRST, SECOND):
        setting.records.key_stopped("main", key, "by a test")
    setting.start()
    eventually(
        lambda: setting.catalog.snapshot().keystores[OTHER.value].keys[OTHER_KEY.value].active.stopped is not None
    )
    setting.records.stop()


def test_what_is_known_of_a_key_is_forgotten_when_it_is_unregistered(setting: Setting) -> None:
    setting.start()
    eventually(lambda: setting.records._seen is setting.latest)
    assert FIRST in setting.hsm.known
    empty = replace(setting.keystore(), keys={})
    setting.latest = replace(setting.latest, keystores={**setting.latest.keystores, PREFIX.value: empty})
    eventually(lambda: FIRST not in setting.hsm.known)
    assert SECOND in setting.hsm.known
    setting.records.stop()


def test_what_is_known_of_a_replaced_canary_is_forgotten(setting: Setting) -> None:
    """Else the probe would go on to find that the key does not open it."""
    setting.start()
    eventually(lambda: setting.records._seen is setting.latest)
    assert SECOND in setting.hsm.known
    generation = setting.keystore(OTHER).keys[OTHER_KEY.value].active.id
    assert setting.catalog.record_canary(generation, b"new")
    setting.latest = setting.catalog.snapshot()
    eventually(lambda: SECOND not in setting.hsm.known)
    assert FIRST in setting.hsm.known
    setting.records.stop()


def test_a_keystore_with_another_path_keeps_its_keys(setting: Setting) -> None:
    setting.catalog.stop_generation(setting.keystore().keys[KEY.value].active.id, "by a test")
    setting.latest = setting.catalog.snapshot()
    setting.start()
    eventually(lambda: bool(setting.records.recorded))
    moved = {f"/a{number}{PREFIX.value}": setting.keystore() for number in range(20)}
    for path, keystore in moved.items():
        setting.latest = Snapshot(setting.latest.version, {path: keystore})
        eventually(lambda: setting.records._seen is setting.latest)
        assert setting.records.recorded == {"main": {FIRST: "by a test"}}
    setting.records.stop()


def rotated_unheard(setting: Setting) -> Generation:
    """The key has a new active generation, and was never seen with it as a ready one."""
    with setting.catalog.change() as transaction:
        rotation.plan_generation(transaction, "main", KEY.value, hsm="main", label="new")
    (row,) = (one.generation_id for one in setting.catalog.keys("main") if one.state is GenerationState.PLANNED)
    with setting.catalog.change() as transaction:
        rotation.make_ready(transaction, row, Proof(canary=b"canary"))
        rotation.take_step(transaction, row, Step.ACTIVATE)
    setting.latest = setting.catalog.snapshot()
    return setting.keystore().keys[KEY.value].active


def test_the_key_of_a_generation_that_was_activated_unheard_is_looked_for_until_it_is_found(setting: Setting) -> None:
    old = setting.keystore().keys[KEY.value].active
    setting.start()
    eventually(lambda: setting.records.recorded == {"main": {}})
    new = rotated_unheard(setting)
    eventually(lambda: {ready.id for ready in setting.records.ready} == {new.id})
    assert (setting.records.is_new(old), setting.records.is_new(new)) == (False, True)
    (ready,) = setting.records.ready
    setting.records.generation_found(ready, "the HSM does not show it")
    setting.records.generation_found(ready, None)
    eventually(lambda: not setting.records.is_new(new))
    setting.records.stop()


def test_a_worker_that_starts_looks_for_no_key_that_is_in_use(setting: Setting) -> None:
    """Its library was initialised a moment ago: a key that it does not show is gone."""
    new = rotated_unheard(setting)
    setting.start()
    setting.records.stop()
    assert (setting.records.ready, setting.records.is_new(new)) == (frozenset(), False)


def test_a_key_that_is_registered_meanwhile_is_missing_at_once_and_not_only_once_it_was_followed(
    setting: Setting,
) -> None:
    setting.start()
    eventually(lambda: setting.records.recorded == {"main": {}})
    setting.catalog.register_key("main", ExternalKeyId("late"), hsm="main", label="late")
    generation = setting.catalog.snapshot().keystores[PREFIX.value].keys["late"].active
    assert not setting.records.is_new(generation)
    setting.records.stop()
