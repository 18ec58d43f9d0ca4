"""What we write, Go's and transparency-dev's packages verify; what they write, we verify.

The program in `foreign/` stands on golang.org/x/mod/sumdb (note, tlog) and transparency-dev's formats, merkle and
tessera. Where there is no Go, or its modules cannot be downloaded, these tests are skipped.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.audit.logs import LOG, ORIGIN, MemoryLog, Signer, ecdsa, ed25519, entries
from tests.waiting import PATIENCE

from holdfast.audit.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from holdfast.audit.faults import LogDamaged
from holdfast.audit.keys import SignatureType, VerifierKey, cosign
from holdfast.audit.note import Note
from holdfast.audit.proof import Proof, prove
from holdfast.audit.tiles import CHECKPOINT, Tiles
from holdfast.audit.verify import verify_log
from holdfast.store.log_directory import directory_reader

pytestmark = pytest.mark.programs

SOURCE = Path(__file__).parent / "foreign"
WITNESS = ed25519("witness.example", number=3, kind=SignatureType.COSIGNATURE)
SIZES = [1, 2, 255, 256, 257, 513, 700]


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: nothing foreign verifies the audit log")
    directory = tmp_path_factory.mktemp("foreign") / "program"
    shutil.copytree(SOURCE, directory)
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
    for command in (["mod", "download"], ["build", "-o", "foreign", "."]):
        done = subprocess.run(
            [go, *command],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode and command[0] == "mod":
            pytest.skip(f"the Go modules cannot be downloaded here: {done.stderr.strip()[-200:]}")
        assert done.returncode == 0, done.stderr
    return directory / "foreign"


def run(program: Path, *arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [program, *map(str, arguments)], input=given, capture_output=True, timeout=PATIENCE, check=False
    )


def verified(program: Path, *arguments: object) -> bool:
    done = run(program, *arguments)
    assert done.returncode == 0 or done.stderr, "it fails with a reason"
    return done.returncode == 0


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("signer", [LOG, ed25519()], ids=["ECDSA", "Ed25519"])
def test_a_log_of_ours_is_verified_by_go(foreign: Path, tmp_path: Path, size: int, signer: Signer) -> None:
    """The checkpoint, each tile and entry by tessera's fsck; each record and older tree by Go's tlog."""
    directory = write(tmp_path, MemoryLog(signer).append(*entries(size)).files)
    assert verified(foreign, "check-log", directory, signer.key)


def test_go_refuses_what_we_refuse(foreign: Path, tmp_path: Path) -> None:
    """Otherwise its consent would say nothing."""
    files = MemoryLog().append(*entries(300)).files
    for path in ("tile/entries/000", "tile/0/000", "tile/1/000.p/1", CHECKPOINT):
        changed = files | {path: files[path][:30] + bytes([files[path][30] ^ 1]) + files[path][31:]}
        directory = write(tmp_path, changed)
        assert not verified(foreign, "check-log", directory, LOG.key)
    assert not verified(foreign, "check-log", write(tmp_path, files), ecdsa(number=2).key)


def test_both_signatures_of_a_log_are_verified_by_go(foreign: Path, tmp_path: Path) -> None:
    log, second = MemoryLog().append(*entries(5)), ed25519()
    checkpoint = Checkpoint(ORIGIN, 5, log.edge.root())
    both = sign_checkpoint(checkpoint, (LOG.key, LOG.sign), (second.key, second.sign)).encode()
    directory = write(tmp_path, log.files | {CHECKPOINT: both})
    assert verified(foreign, "check-log", directory, LOG.key, second.key)


@pytest.mark.parametrize("index", [0, 255, 256, 299])
def test_a_proof_of_ours_with_a_cosignature_is_verified_by_go(foreign: Path, tmp_path: Path, index: int) -> None:
    log = MemoryLog().append(*entries(300))
    note = open_checkpoint(log.files[CHECKPOINT], [LOG.key]).note
    cosigned = Note(note.text, (*note.signatures, cosign(note.text, WITNESS.key, WITNESS.sign, time=1_700_000_000)))
    proof = prove(Tiles(log.files.get, 300), index, checkpoint=cosigned.encode(), extra=b"extra")
    directory = write(tmp_path, {"p": proof.encode(), "right": list(entries(300))[index], "wrong": b"wrong"})
    assert verified(foreign, "check-proof", directory / "p", directory / "right", LOG.key, WITNESS.key)
    assert not verified(foreign, "check-proof", directory / "p", directory / "wrong", LOG.key, WITNESS.key)
    stranger = ed25519("witness.example", number=4, kind=SignatureType.COSIGNATURE)
    assert not verified(foreign, "check-proof", directory / "p", directory / "right", LOG.key, stranger.key)


@pytest.mark.parametrize("size", SIZES)
def test_a_log_and_proofs_of_go_are_verified_by_us(foreign: Path, tmp_path: Path, size: int) -> None:
    logged = list(entries(size))
    made = run(foreign, "make", tmp_path, ORIGIN, given=b"".join(entry + b"\n" for entry in logged))
    assert made.returncode == 0, made.stderr
    *keys, witness = map(VerifierKey.parse, made.stdout.decode().split())
    read = directory_reader(tmp_path)
    for key in keys:
        checked = verify_log(read, [key], witnesses=[witness])
        assert checked.records.total() == size
        for index in {0, size // 2, size - 1}:
            proof = Proof.parse((tmp_path / f"proofs/{index}.tlog-proof").read_bytes())
            assert proof.extra == logged[index]
            signed = proof.check(logged[index], [key], witnesses=[witness])
            assert signed.witnessed.keys() == {"witness.example"}
            assert proof == prove(
                Tiles(read, size), index, checkpoint=(tmp_path / CHECKPOINT).read_bytes(), extra=logged[index]
            )
    bundle = tmp_path / ("tile/entries/000" if size >= 256 else f"tile/entries/000.p/{size}")
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"!")
    with pytest.raises(LogDamaged):
        verify_log(read, [keys[0]])
