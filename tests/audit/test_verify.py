"""Each way in which a log can be tampered with is found, and named with its place."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.logs import LOG, NOW, MemoryLog, ecdsa, entries

from holdfast.audit.checkpoint import SignedCheckpoint, open_checkpoint
from holdfast.audit.faults import AuditFault, Finding, Kind, LogDamaged, NotSigned
from holdfast.audit.records import Actor, Lost, Pruned, encode, segment_path
from holdfast.audit.tiles import CHECKPOINT, decode_bundle, encode_bundle
from holdfast.audit.verify import MAX_FINDINGS, verify_log

SIZE = 600
FIRST, SECOND, LAST = "tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"
Files = dict[str, bytes]


LOGGED = MemoryLog().append(*entries(SIZE)).files


def fresh() -> Files:
    return dict(LOGGED)


def findings(files: Files, *, earlier: list[SignedCheckpoint] | None = None) -> list[Finding]:
    with pytest.raises(LogDamaged) as caught:
        verify_log(files.get, [LOG.key], earlier=earlier or [])
    return list(caught.value.findings)


def places(files: Files) -> list[tuple[Kind, str, int | None]]:
    return [(finding.kind, finding.path, finding.index) for finding in findings(files)]


def edit(files: Files, path: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    files[path] = encode_bundle(change(decode_bundle(files[path])))


def flip(raw: bytes, position: int) -> bytes:
    return raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, SIZE])
def test_an_untouched_log_is_verified(size: int) -> None:
    verified = verify_log(MemoryLog().append(*entries(size)).files.get, [LOG.key])
    assert verified.signed.checkpoint.size == size
    assert verified.records.total() == size


@pytest.mark.parametrize("index", [0, 255, 256, 599])
def test_a_changed_entry(index: int) -> None:
    files = fresh()
    path = [FIRST, SECOND, LAST][index // 256]
    edit(files, path, lambda held: [*held[: index % 256], b"{}", *held[index % 256 + 1 :]])
    assert [(f.kind, f.index) for f in findings(files)] == [(Kind.CHANGED, index)]
    assert f"entry {index} in tile/entries/00{index // 256} is not the one" in findings(files)[0].text


def test_two_entries_that_changed_places() -> None:
    files = fresh()
    edit(files, FIRST, lambda held: [held[0], held[2], held[1], *held[3:]])
    found = findings(files)
    assert [(f.kind, f.index) for f in found] == [(Kind.REORDERED, 1), (Kind.REORDERED, 2)]
    assert "signed as entry 2" in found[0].text


def test_two_bundles_that_changed_places() -> None:
    files = fresh()
    files[FIRST], files[SECOND] = files[SECOND], files[FIRST]
    found = findings(files)
    assert len(found) == MAX_FINDINGS
    assert {f.kind for f in found} == {Kind.REORDERED}
    assert "entry 0 in tile/entries/000 is the one that was signed as entry 256" in found[0].text


@pytest.mark.parametrize("index", [0, 100, 254])
def test_a_removed_entry(index: int) -> None:
    files = fresh()
    edit(files, FIRST, lambda held: held[:index] + held[index + 1 :])
    assert places(files) == [(Kind.REMOVED, FIRST, index)]


def test_an_added_entry() -> None:
    files = fresh()
    edit(files, LAST, lambda held: [*held[:5], b"{}", *held[5:]])
    assert places(files) == [(Kind.CHANGED, LAST, 517)]


def test_a_bundle_that_ends_before_its_time() -> None:
    files = fresh()
    edit(files, LAST, lambda held: held[:-3])
    assert places(files) == [(Kind.TRUNCATED, LAST, 597)]
    files[LAST] = files[LAST][:-1]
    assert places(files) == [(Kind.TRUNCATED, LAST, 512)]


@pytest.mark.parametrize(("path", "index"), [(FIRST, 0), (SECOND, 256), (LAST, 512)])
def test_a_removed_bundle(path: str, index: int) -> None:
    files = fresh()
    del files[path]
    assert places(files) == [(Kind.REMOVED, path, index)]


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"])
def test_a_removed_or_truncated_tile(path: str) -> None:
    files = fresh()
    raw = files.pop(path)
    assert places(files) == [(Kind.REMOVED, path, None)]
    files[path] = raw[:-1]
    assert places(files) == [(Kind.TRUNCATED, path, None)]
    files[path] = raw + b"x"
    assert places(files) == [(Kind.CHANGED, path, None)]


@pytest.mark.parametrize("index", [0, 300, 599])
def test_a_changed_tile_of_leaves(index: int) -> None:
    files = fresh()
    path = ["tile/0/000", "tile/0/001", "tile/0/002.p/88"][index // 256]
    files[path] = flip(files[path], index % 256 * 32 + 31)
    assert places(files) == [(Kind.CHANGED, path.partition(".")[0], index)]


def test_a_changed_tile_above_the_leaves() -> None:
    files = fresh()
    files["tile/1/000.p/2"] = flip(files["tile/1/000.p/2"], 32)
    assert places(files) == [(Kind.CHANGED, "tile/1/000.p/2", None)]
    assert "hash 1 of" in findings(files)[0].text


def test_a_removed_checkpoint() -> None:
    files = fresh()
    del files[CHECKPOINT]
    assert places(files) == [(Kind.REMOVED, CHECKPOINT, None)]


def test_a_checkpoint_of_another_key() -> None:
    files = fresh()
    with pytest.raises(NotSigned):
        verify_log(files.get, [ecdsa(number=2).key])


def test_a_history_that_was_written_again_and_signed_again_is_found_by_a_kept_checkpoint() -> None:
    """The holder of the signing key can make another log; only what was kept elsewhere shows it."""
    kept = open_checkpoint(fresh()[CHECKPOINT], [LOG.key])
    other = MemoryLog().append(*entries(SIZE, first=1)).files
    verify_log(other.get, [LOG.key])
    assert [f.kind for f in findings(other, earlier=[kept])] == [Kind.ROLLED_BACK]


def test_a_log_put_back_to_an_older_state_is_found_by_a_kept_checkpoint() -> None:
    log = MemoryLog().append(*entries(300))
    old = dict(log.files)
    kept = open_checkpoint(log.append(*entries(10, first=300)).files[CHECKPOINT], [LOG.key])
    verify_log(old.get, [LOG.key])
    assert "one of 310 was signed before" in findings(old, earlier=[kept])[0].text


def test_checkpoints_of_the_same_log_that_were_kept_agree() -> None:
    log, kept = MemoryLog(), []
    for size in (0, 1, 254, 1, 1, 300):
        log.append(*entries(size, first=log.edge.size))
        kept.append(open_checkpoint(log.files[CHECKPOINT], [LOG.key]))
    assert verify_log(log.files.get, [LOG.key], earlier=kept).signed.checkpoint.size == 557


def test_a_kept_checkpoint_of_another_log_is_told() -> None:
    other = ecdsa("another-log")
    kept = open_checkpoint(MemoryLog(other).append(*entries(3)).files[CHECKPOINT], [other.key])
    assert "another-log" in findings(fresh(), earlier=[kept])[0].text


def test_entries_and_tiles_that_were_both_written_again() -> None:
    files = fresh()
    checkpoint = files[CHECKPOINT]
    files = {**MemoryLog().append(*entries(SIZE, first=1)).files, CHECKPOINT: checkpoint}
    assert places(files) == [(Kind.REWRITTEN, CHECKPOINT, None)]


def test_a_changed_entry_and_a_changed_tile_are_both_named() -> None:
    files = fresh()
    edit(files, FIRST, lambda held: [b"{}", *held[1:]])
    files["tile/0/001"] = flip(files["tile/0/001"], 0)
    assert {f.index for f in findings(files)} == {0, 256, None}


def test_what_cannot_be_read_at_all_ends_the_verification() -> None:
    files = fresh()
    del files[FIRST], files["tile/0/000"]
    assert "what follows was not looked at" in findings(files)[-1].text


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_no_changed_byte_goes_unseen(data: st.DataObject) -> None:
    files = fresh()
    path = data.draw(st.sampled_from(sorted(files)))
    files[path] = flip(files[path], data.draw(st.integers(0, len(files[path]) - 1)))
    with pytest.raises(AuditFault):
        verify_log(files.get, [LOG.key])


ALICE = Actor(name="alice", known_by="os-user")
LINES = [b'{"n":%d}' % n for n in range(4)]


def test_segments_are_counted_and_looked_into() -> None:
    log = MemoryLog()
    log.append_segment(LINES)
    log.append_segment(LINES, first=5, last=10)
    log.append(encode(Lost(time=NOW, stream="1", first=11, last=12, reason="full")))
    log.append(encode(Lost(time=NOW, stream="1", first=13, reason="killed")))
    verified = verify_log(log.files.get, [LOG.key])
    assert (verified.events, verified.lost, verified.cut) == (8, 4, 1)
    assert verified.records == {"segment": 2, "lost": 2}


def test_a_segment_that_was_changed_truncated_or_removed() -> None:
    log = MemoryLog().append(*entries(2))
    path = segment_path(log.append_segment(LINES).sha256)
    for raw in (flip(log.files[path], 3), log.files[path][:-1], b""):
        assert places(log.files | {path: raw}) == [(Kind.CHANGED, path, 2)]
    del log.files[path]
    assert places(log.files) == [(Kind.REMOVED, path, 2)]


def test_a_segment_that_never_was_what_its_record_says() -> None:
    """The log signed it so: its writer is wrong, or lies."""
    log = MemoryLog()
    record = log.append_segment(LINES)
    log.append(encode(msgspec.structs.replace(record, first=5, last=9, count=5)))
    assert places(log.files) == [(Kind.MALFORMED, FIRST, 1)]


def test_events_that_no_record_accounts_for() -> None:
    log = MemoryLog()
    log.append_segment(LINES)
    log.append_segment(LINES, first=7)
    assert places(log.files) == [(Kind.GAP, FIRST, 1)]
    assert "events 5 to 6" in findings(log.files)[0].text


def test_an_entry_that_is_no_record() -> None:
    log = MemoryLog().append(*entries(2)).append(b"no record\x1b[2J")
    assert places(log.files) == [(Kind.MALFORMED, FIRST, 2)]
    assert findings(log.files)[0].text.isprintable()


def pruned_log(*, entries_below: int = 0, segments_below: int = 0) -> tuple[Files, str]:
    log = MemoryLog()
    path = segment_path(log.append_segment(LINES).sha256)
    log.append(*entries(255))
    log.append(encode(Pruned(time=NOW, actor=ALICE, entries_below=entries_below, segments_below=segments_below)))
    log.append_segment(LINES[:2], first=5)
    return log.files, path


def test_what_a_record_says_was_pruned_may_be_gone() -> None:
    files, segment = pruned_log(entries_below=256, segments_below=1)
    del files[FIRST], files[segment]
    assert verify_log(files.get, [LOG.key]).pruned == 256
    files, segment = pruned_log(segments_below=1)
    del files[segment]
    assert verify_log(files.get, [LOG.key]).pruned == 1


def test_what_no_record_says_was_pruned_may_not() -> None:
    files, _ = pruned_log(entries_below=255)
    del files[FIRST]
    assert places(files) == [(Kind.REMOVED, FIRST, 0)]
    files, segment = pruned_log(entries_below=256)
    del files[segment]
    assert places(files) == [(Kind.REMOVED, segment, 0)]
    files, _ = pruned_log(entries_below=256)
    edit(files, FIRST, lambda held: held[1:])
    assert places(files) == [(Kind.REMOVED, FIRST, 0)]


def test_more_segments_than_findings_may_be_pruned() -> None:
    log = MemoryLog()
    paths = [
        segment_path(log.append_segment([b"%d" % number], first=number).sha256)
        for number in range(1, MAX_FINDINGS + 50)
    ]
    log.append(encode(Pruned(time=NOW, actor=ALICE, segments_below=len(paths) - 1)))
    for path in paths[:-1]:
        del log.files[path]
    assert verify_log(log.files.get, [LOG.key]).pruned == len(paths) - 1
    del log.files[paths[-1]]
    assert places(log.files) == [(Kind.REMOVED, paths[-1], len(paths) - 1)]
