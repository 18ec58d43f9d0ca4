"""`holdfast audit`: what a stranger sees who has a copy of the log, or one proof, and the verifier keys."""

import shutil
from pathlib import Path

import msgspec
import pytest
from tests.audit.logs import LOG, NOW, ecdsa, ed25519, entries
from tests.audit.test_records import CHANGE
from tests.cli.conftest import Run

from holdfast.audit.keys import SignatureType, cosign
from holdfast.audit.note import Note
from holdfast.audit.proof import Proof
from holdfast.audit.records import Segment, encode, segment_path
from holdfast.audit.tiles import CHECKPOINT
from holdfast.cli.exit_codes import ExitCode
from holdfast.store.log_directory import LogDirectory

EVENTS = [b'{"kmsRequestId":"request-%d","operation":"Decrypt"}' % (number // 2) for number in range(5)]
SEGMENT = Segment.of(EVENTS, stream="node-1/1", first=1, last=5, time=NOW)
KEY = ("--key", LOG.key)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log with a change, a segment and 300 other entries."""
    directory = tmp_path / "log"
    with LogDirectory(directory, [(LOG.key, LOG.sign)]) as writer:
        writer.store_segment(SEGMENT.sha256, EVENTS)
        writer.append([encode(CHANGE), encode(SEGMENT), *entries(300)])
        writer.checkpoint()
    return directory


def test_a_log_is_verified(run: Run, log: Path) -> None:
    done = run("audit", "verify", log, *KEY).ok()
    assert "entries: 302\n" in done.out
    assert "records: 1 change, 1 segment, 300 test\n" in done.out
    assert "what was signed" in done.err
    as_json = run("audit", "verify", log, *KEY, "--json").ok().json
    assert (as_json["verified"], as_json["entries"], as_json["events"], as_json["findings"]) == (True, 302, 5, [])


def test_a_damaged_log_is_told_with_its_places(run: Run, log: Path) -> None:
    (log / "tile/entries/000").unlink()
    path = log / segment_path(SEGMENT.sha256)
    path.write_bytes(b"{}\n")
    done = run("audit", "verify", log, *KEY)
    assert (done.code, done.out) == (ExitCode.EVIDENCE, "removed: there is no file tile/entries/000\n")
    assert "not what was signed" in done.err
    done = run("audit", "verify", log, *KEY, "--json")
    assert done.code == ExitCode.EVIDENCE
    assert done.json["findings"] == [
        {"kind": "removed", "path": "tile/entries/000", "text": "there is no file tile/entries/000", "index": 0}
    ]


def test_a_changed_segment_is_told(run: Run, log: Path) -> None:
    (log / segment_path(SEGMENT.sha256)).write_bytes(b"{}\n")
    done = run("audit", "verify", log, *KEY)
    assert done.code == ExitCode.EVIDENCE
    assert "is not the segment that entry 1 names" in done.out


def test_a_log_put_back_is_told_by_a_checkpoint_that_was_kept(run: Run, log: Path, tmp_path: Path) -> None:
    old = shutil.copytree(log, tmp_path / "old")
    with LogDirectory(log, [(LOG.key, LOG.sign)]) as writer:
        writer.append(entries(1, first=300))
        writer.checkpoint()
    assert "--earlier" in run("audit", "verify", old, *KEY).ok().err
    done = run("audit", "verify", old, *KEY, "--earlier", log / CHECKPOINT)
    assert done.code == ExitCode.EVIDENCE
    assert "rolled back: the checkpoint has 302 entries, but one of 303 was signed before" in done.out
    run("audit", "verify", log, *KEY, "--earlier", old / CHECKPOINT).ok()


def test_another_key_verifies_nothing(run: Run, log: Path) -> None:
    done = run("audit", "verify", log, "--key", ecdsa(number=2).key)
    assert (done.code, done.out) == (ExitCode.EVIDENCE, "")
    assert "no given key" in done.err


def test_keys_are_read_from_files(run: Run, log: Path, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{ecdsa(number=2).key}\n{LOG.key}\n")
    run("audit", "verify", log, "--key", path).ok()


@pytest.mark.parametrize("key", ["name+00000000+AAAA", "no/such/file"])
def test_what_is_no_key_is_told(run: Run, log: Path, key: str) -> None:
    done = run("audit", "verify", log, "--key", key)
    assert done.code == ExitCode.CONFIGURATION
    assert "hint: " in done.err


def test_what_is_no_log_is_told(run: Run, tmp_path: Path) -> None:
    done = run("audit", "verify", tmp_path / "none", *KEY)
    assert done.code == ExitCode.CONFIGURATION
    assert "there is no checkpoint" in run("audit", "verify", tmp_path, *KEY).out
    done = run("audit", "prove", tmp_path, "c-17")
    assert (done.code, "no checkpoint" in done.err) == (ExitCode.EVIDENCE, True)


def test_a_witness_must_have_cosigned(run: Run, log: Path) -> None:
    witness = ed25519("witness", kind=SignatureType.COSIGNATURE)
    asked = (*KEY, "--witness", witness.key)
    assert run("audit", "verify", log, *asked).code == ExitCode.EVIDENCE
    note = Note.parse((log / CHECKPOINT).read_bytes())
    cosigned = Note(note.text, (*note.signatures, cosign(note.text, witness.key, witness.sign, time=1_700_000_000)))
    (log / CHECKPOINT).write_bytes(cosigned.encode())
    assert "witnessed: witness at 2023-11-14 22:13:20 UTC\n" in run("audit", "verify", log, *asked).ok().out
    proof = log / "proof"
    run("audit", "prove", log, "c-17", "--output", proof).ok()
    assert "Cosigned by witness" in run("audit", "check-proof", proof, *asked).ok().err


def test_a_change_is_proven_to_a_stranger(run: Run, log: Path, tmp_path: Path) -> None:
    proof = tmp_path / "c-17.tlog-proof"
    run("audit", "prove", log, "c-17", "--output", proof).ok()
    shutil.rmtree(log)
    done = run("audit", "check-proof", proof, *KEY).ok()
    assert done.json["actor"] == {"name": "alice", "known_by": "os-user", "where": "node-1"}
    assert "Proven: entry 0 (of 0 to 301) of the log holdfast/madrid/node-1." in done.err
    assert run("audit", "check-proof", proof, "--key", ecdsa(number=2).key).code == ExitCode.EVIDENCE


def test_of_a_change_with_several_records_the_one_is_proven_that_says_what_became_of_it(run: Run, log: Path) -> None:
    with LogDirectory(log, [(LOG.key, LOG.sign)]) as writer:
        writer.append([encode(msgspec.structs.replace(CHANGE, outcome="approved"))])
        writer.checkpoint()
    done = run("audit", "prove", log, "c-17", "--output", log / "proof").ok()
    assert "The change has 2 records: entry:0, entry:302." in done.err
    assert run("audit", "check-proof", log / "proof", *KEY).ok().json["outcome"] == "approved"


def test_an_event_is_proven_without_the_others(run: Run, log: Path, tmp_path: Path) -> None:
    proof = tmp_path / "event.tlog-proof"
    proof.write_text(run("audit", "prove", log, "request-2").ok().out)
    assert b"request-0" not in Proof.parse(proof.read_bytes()).extra
    shown = run("audit", "check-proof", proof, *KEY, "--json").ok().json
    assert (shown["proven"], shown["index"], shown["event"]["kmsRequestId"]) == (True, 1, "request-2")


def test_a_request_that_kms_sent_twice_has_two_events(run: Run, log: Path) -> None:
    done = run("audit", "prove", log, "request-1")
    assert done.code == ExitCode.CONFLICT
    assert "entry:1:2, entry:1:3" in done.err
    run("audit", "prove", log, "entry:1:3").ok()


@pytest.mark.parametrize("what", ["c-18", "entry:302", "entry:1:5", "entry:0:0"])
def test_what_is_not_in_the_log_is_told(run: Run, log: Path, what: str) -> None:
    done = run("audit", "prove", log, what)
    assert (done.code, done.out) == (ExitCode.NOT_FOUND, "")
    assert "hint: " in done.err


def test_a_proof_that_was_changed_proves_nothing(run: Run, log: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    run("audit", "prove", log, "c-17", "--output", proof).ok()
    raw = proof.read_bytes()
    for changed in (
        raw.replace(b"index 0", b"index 1"),
        raw[:-9] + b"\n",
        raw.replace(b"extra ey", b"extra ez"),
        b"",
    ):
        proof.write_bytes(changed)
        done = run("audit", "check-proof", proof, *KEY)
        assert (done.code, done.out) == (ExitCode.EVIDENCE, "")


def test_a_file_is_not_written_over(run: Run, log: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    assert run("audit", "prove", log, "c-17", "--output", tmp_path / "there").code == ExitCode.CONFLICT
    assert (tmp_path / "there").read_text() == "mine"
