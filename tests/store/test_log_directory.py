"""What a log on disk survives: crashes at each step, a full disk, a failing HSM, a second process, tampering."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.logs import LOG, ORIGIN, Signer, ecdsa, ed25519, entries

from holdfast import durable
from holdfast.audit.checkpoint import Checkpoint
from holdfast.audit.faults import Kind, LogDamaged, NotSigned
from holdfast.audit.merkle import leaf_hash, root_of
from holdfast.audit.note import Note
from holdfast.audit.records import segment_path
from holdfast.audit.tiles import CHECKPOINT
from holdfast.audit.verify import verify_log
from holdfast.store import log_directory
from holdfast.store.log_directory import LogDirectory, LogUnusable, directory_reader

SIGNERS = [(LOG.key, LOG.sign)]
FAST = ed25519()


def verified_size(directory: Path, signer: Signer = LOG) -> int:
    return verify_log(directory_reader(directory), [signer.key]).signed.checkpoint.size


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_a_new_log_signs_its_empty_tree(tmp_path: Path) -> None:
    with LogDirectory(tmp_path / "logs" / "node", SIGNERS) as log:
        assert (log.size, log.signed.checkpoint.size) == (0, 0)
    assert verified_size(tmp_path / "logs" / "node") == 0


def test_entries_are_on_disk_before_they_are_signed(tmp_path: Path) -> None:
    with LogDirectory(tmp_path, SIGNERS) as log:
        assert (log.append(entries(3)), log.append(entries(2, first=3))) == (0, 3)
        assert log.signed.checkpoint.size == 0
    with LogDirectory(tmp_path, SIGNERS) as log:
        assert list(log.entries()) == list(entries(5))
        assert list(log.entries(3)) == list(entries(2, first=3))
        assert log.checkpoint().checkpoint.size == 5
    assert verified_size(tmp_path) == 5


def test_a_log_grows_over_restarts_and_tiles(tmp_path: Path) -> None:
    for first in range(0, 700, 70):
        with LogDirectory(tmp_path, SIGNERS) as log:
            log.append(entries(70, first=first))
            log.checkpoint()
            assert list(log.entries(250)) == list(entries(max(0, first + 70 - 250), first=250))
    assert verified_size(tmp_path) == 700


def test_partial_files_go_when_the_full_one_is_signed(tmp_path: Path) -> None:
    with LogDirectory(tmp_path, SIGNERS) as log:
        for first in range(0, 300, 100):
            log.append(entries(100, first=first))
            log.checkpoint()
    assert files(tmp_path) == {
        ".lock",
        CHECKPOINT,
        "tile/0/000",
        "tile/0/001.p/44",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/44",
    }


def test_nothing_new_costs_no_signature(tmp_path: Path) -> None:
    signed = []

    def sign(message: bytes) -> bytes:
        signed.append(message)
        return LOG.sign(message)

    with LogDirectory(tmp_path, [(LOG.key, sign)]) as log:
        log.append(entries(1))
        first = log.checkpoint()
        assert log.checkpoint() is first
    assert len(signed) == 2


def test_a_new_key_signs_at_once_and_the_former_one_is_still_read(tmp_path: Path) -> None:
    new = ecdsa(number=2)
    with LogDirectory(tmp_path, SIGNERS) as log:
        log.append(entries(1))
        log.checkpoint()
    with pytest.raises(NotSigned), LogDirectory(tmp_path, [(new.key, new.sign)]):
        pass
    with LogDirectory(tmp_path, [(new.key, new.sign)], former_keys=[LOG.key]) as log:
        assert log.checkpoint().signed_by == (new.key,)
    assert verified_size(tmp_path, new) == 1


def test_an_hsm_that_is_down_delays_the_signature_only(tmp_path: Path) -> None:
    up = [True]

    def sign(message: bytes) -> bytes:
        if not up[0]:
            raise ConnectionError("the HSM is down")
        return LOG.sign(message)

    with LogDirectory(tmp_path, [(LOG.key, sign)]) as log:
        up[0] = False
        log.append(entries(300))
        with pytest.raises(ConnectionError):
            log.checkpoint()
        log.append(entries(1, first=300))
        up[0] = True
        log.checkpoint()
    assert verified_size(tmp_path) == 301


def test_a_wrong_signature_does_not_replace_a_right_one(tmp_path: Path) -> None:
    with LogDirectory(tmp_path, SIGNERS):
        pass
    with LogDirectory(tmp_path, [(LOG.key, ecdsa(number=2).sign)]) as log:
        log.append(entries(1))
        with pytest.raises(NotSigned):
            log.checkpoint()
    assert verified_size(tmp_path) == 0


def test_one_process_writes_a_log(tmp_path: Path) -> None:
    with LogDirectory(tmp_path, SIGNERS), pytest.raises(LogUnusable, match="another process"):
        LogDirectory(tmp_path, SIGNERS)
    with LogDirectory(tmp_path, SIGNERS):
        pass


def test_after_a_failed_write_the_log_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LogDirectory(tmp_path, SIGNERS) as log:
        log.append(entries(2))
        with monkeypatch.context() as patch:
            patch.setattr(durable, "replace", _full_disk)
            with pytest.raises(OSError, match="No space"):
                log.append(entries(1, first=2))
        for call in (lambda: log.append(entries(1)), log.checkpoint):
            with pytest.raises(LogUnusable, match="opened again"):
                call()
    with LogDirectory(tmp_path, SIGNERS) as log:
        assert list(log.entries()) == list(entries(2))


def test_an_entry_too_long_is_refused_and_spoils_nothing(tmp_path: Path) -> None:
    with LogDirectory(tmp_path, SIGNERS) as log:
        with pytest.raises(ValueError, match="65536"):
            log.append([b"short", b"x" * 65536])
        assert log.append(entries(2)) == 0
        log.checkpoint()
    assert verified_size(tmp_path) == 2


def _full_disk(path: Path, _: bytes, *, mode: int) -> None:  # noqa: ARG001 (as `durable.replace`)
    raise OSError(28, "No space left on device", str(path))


def test_a_segment_that_cannot_be_written_spoils_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LogDirectory(tmp_path, SIGNERS) as log:
        with monkeypatch.context() as patch:
            patch.setattr(durable, "replace", _full_disk)
            with pytest.raises(OSError, match="No space"):
                log.store_segment("ab" * 32, [b"{}"])
        log.store_segment("ab" * 32, [b"{}", b"{}"])
        log.append(entries(1))
    assert (tmp_path / segment_path("ab" * 32)).read_bytes() == b"{}\n{}\n"


def _remove(path: str) -> Callable[[Path], None]:
    return lambda directory: (directory / path).unlink()


def _flip(path: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        raw = bytearray((directory / path).read_bytes())
        raw[5] ^= 1
        (directory / path).write_bytes(raw)

    return change


def _longer(directory: Path) -> None:
    """A bundle that goes on from other entries than those that were signed."""
    (directory / "tile/entries/000.p/4").write_bytes(b"\x00\x00" * 4)


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (_remove(CHECKPOINT), Kind.REMOVED),
        (_remove("tile/0/000.p/3"), Kind.REMOVED),
        (_remove("tile/entries/000.p/3"), Kind.REMOVED),
        (_flip("tile/0/000.p/3"), Kind.REWRITTEN),
        (_longer, Kind.CHANGED),
    ],
)
def test_a_log_that_was_tampered_with_is_not_continued(
    tmp_path: Path, tamper: Callable[[Path], None], kind: Kind
) -> None:
    """Otherwise the next signature would cover what was changed. Older entries are `audit verify`'s to check."""
    with LogDirectory(tmp_path, SIGNERS) as log:
        log.append(entries(3))
        log.checkpoint()
    tamper(tmp_path)
    before = {path: (tmp_path / path).read_bytes() for path in files(tmp_path)}
    with pytest.raises(LogDamaged) as caught, LogDirectory(tmp_path, SIGNERS):
        pass
    assert caught.value.findings[0].kind is kind
    assert {path: (tmp_path / path).read_bytes() for path in files(tmp_path)} == before


@pytest.mark.parametrize("behind", [0, 2, 400])
def test_a_log_put_back_to_an_older_state_is_not_continued(tmp_path: Path, behind: int) -> None:
    """The newest checkpoint was kept elsewhere; `behind` entries were written after the one that is on disk."""
    log_path, copy = tmp_path / "log", tmp_path / "copy"
    with LogDirectory(log_path, SIGNERS) as log:
        log.append(entries(3))
        log.checkpoint()
        shutil.copytree(log_path, copy)
        log.append(entries(500, first=3))
        kept = log.checkpoint()
    with LogDirectory(copy, SIGNERS) as log:
        log.append(entries(behind, first=3))
    with pytest.raises(LogDamaged) as caught, LogDirectory(copy, SIGNERS, kept=kept):
        pass
    assert caught.value.findings[0].kind is Kind.ROLLED_BACK
    with LogDirectory(copy, SIGNERS) as log:
        log.append(entries(600, first=3 + behind))
    with LogDirectory(copy, SIGNERS, kept=kept) as log:
        assert log.checkpoint().checkpoint.size == 603 + behind
    with LogDirectory(log_path, SIGNERS, kept=kept):
        pass


def test_a_file_is_synced_before_it_gets_its_name_and_its_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the tiles are durable before the checkpoint that signs them exists."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().relative_to(tmp_path)}")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        done.append(f"name {target.relative_to(tmp_path)}")
        return replace(self, target)

    with LogDirectory(tmp_path, SIGNERS) as log:
        log.append(entries(1))
        log.checkpoint()
        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", replaced)
        log.append(entries(1, first=1))
        assert done == ["sync tile/entries/000.p/.2.new", "name tile/entries/000.p/2", "sync tile/entries/000.p"]
        done.clear()
        log.checkpoint()
    assert done == [
        "sync tile/0/000.p/.2.new",
        "name tile/0/000.p/2",
        "sync tile/0/000.p",
        "sync .checkpoint.new",
        "name checkpoint",
        "sync .",
    ]


class PowerLossError(BaseException):
    """The machine stops at this step."""


class Disk:
    """The steps of a log's writes, one of which is the last; what was not durable then may be undone.

    A name that was given to a file is durable once its directory was synced.
    """

    def __init__(self) -> None:
        self._replace = durable.replace
        self._undo: list[tuple[Path, bytes | None]] = []
        self.steps_left = -1

    def replace(self, path: Path, content: bytes, *, mode: int) -> None:
        """In place of `durable.replace`."""
        self._step()
        self._undo.append((path, path.read_bytes() if path.exists() else None))
        self._replace(path, content, mode=mode)
        self._step()

    def sync(self, path: Path) -> None:
        """In place of `sync_directory`."""
        self._step()
        self._undo = [undo for undo in self._undo if undo[0].parent != path]

    def lose(self, *, chosen: Callable[[], bool]) -> None:
        """Undo some of what was not durable."""
        for path, content in reversed(self._undo):
            if chosen():
                path.unlink() if content is None else path.write_bytes(content)
        self._undo = []
        self.steps_left = -1

    def _step(self) -> None:
        if self.steps_left == 0:
            raise PowerLossError
        self.steps_left -= 1


@pytest.fixture(scope="module", autouse=True)
def _no_real_syncs() -> Iterator[None]:
    """The tests' own disk may be slow; one test above looks at the order of the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "checkpoint"]), st.sampled_from([1, 2, 100, 256, 300]), st.integers(-1, 14)),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=200)
@given(STEPS, st.data())
def test_a_power_loss_at_any_step_loses_and_invents_nothing(
    steps: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    """What was acknowledged is there in its order; no two checkpoints that were ever signed contradict each other."""
    signed: list[Checkpoint] = []

    def sign(message: bytes) -> bytes:
        signed.append(Checkpoint.parse(message.decode()))
        return FAST.sign(message)

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        directory, disk = Path(name), Disk()
        patch.setattr(durable, "replace", disk.replace)
        patch.setattr(log_directory, "sync_directory", disk.sync)
        acknowledged: list[bytes] = []
        log = LogDirectory(directory, [(FAST.key, sign)])
        for attempt, (action, count, steps_left) in enumerate(steps):
            asked = list(entries(count, first=1000 * attempt)) if action == "append" else []
            disk.steps_left = steps_left
            try:
                if asked:
                    log.append(asked)
                else:
                    log.checkpoint()
                acknowledged += asked
                disk.steps_left = -1
            except PowerLossError:
                log.close()
                disk.lose(chosen=lambda: data.draw(st.booleans()))
                log = LogDirectory(directory, [(FAST.key, sign)])
                found = list(log.entries())
                assert found[: len(acknowledged)] == acknowledged
                assert found[len(acknowledged) :] == asked[: len(found) - len(acknowledged)]
                acknowledged = found
        log.checkpoint()
        log.close()
        leaves = [leaf_hash(entry) for entry in acknowledged]
        assert verified_size(directory, FAST) == len(leaves)
        for checkpoint in signed:
            assert checkpoint.root == root_of(leaves[: checkpoint.size])


@pytest.mark.parametrize("undone", list(product([False, True], repeat=2)))
@pytest.mark.parametrize("steps_left", range(12))
def test_a_bundle_that_lost_the_one_before_it_is_not_taken_up_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_left: int, undone: tuple[bool, bool]
) -> None:
    """A power loss at each step of an append over two bundles, with each of the two kept or lost."""
    disk, lost = Disk(), iter(undone)
    monkeypatch.setattr(durable, "replace", disk.replace)
    monkeypatch.setattr(log_directory, "sync_directory", disk.sync)
    log = LogDirectory(tmp_path, SIGNERS)
    log.append(entries(100))
    disk.steps_left = steps_left
    with contextlib.suppress(PowerLossError):
        log.append(entries(200, first=1000))
    log.close()
    disk.lose(chosen=lambda: next(lost))
    with LogDirectory(tmp_path, SIGNERS) as log:
        log.append(entries(max(1, 290 - log.size), first=2000))
        acknowledged = list(log.entries())
    with LogDirectory(tmp_path, SIGNERS) as log:
        assert list(log.entries()) == acknowledged


def test_a_log_is_named_after_its_key(tmp_path: Path) -> None:
    with LogDirectory(tmp_path, SIGNERS) as log:
        assert log.signed.checkpoint.origin == ORIGIN
    assert Note.parse((tmp_path / CHECKPOINT).read_bytes()).text.startswith(f"{ORIGIN}\n0\n")
