"""`holdfast audit reconcile`: logs of two nodes against the files of a trail."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.audit.logs import LOG, NOW, Signer, ecdsa
from tests.audit.test_reconcile import event, frame, record
from tests.cli.conftest import Run

from holdfast.audit.records import Segment, encode
from holdfast.cli.exit_codes import ExitCode
from holdfast.store.log_directory import LogDirectory

OTHER = ecdsa("holdfast/madrid/node-2", number=2)


def log(directory: Path, signer: Signer, *events: dict[str, Any]) -> Path:
    """A node's log with these events."""
    lines = [json.dumps(each).encode() for each in events]
    segment = Segment.of(lines, stream=signer.key.name, first=1, last=len(lines), time=NOW)
    with LogDirectory(directory, [(signer.key, signer.sign)]) as writer:
        writer.store_segment(segment.sha256, lines)
        writer.append([encode(segment)])
        writer.checkpoint()
    return directory


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    """Two nodes, of which each has served one call."""
    return [
        log(tmp_path / "node-1", LOG, frame("event", -60), event("a"), frame("event", 60)),
        log(tmp_path / "node-2", OTHER, event("b", "Encrypt")),
    ]


def trail(directory: Path, *records: dict[str, Any]) -> Path:
    """A directory as CloudTrail fills it, a record per file, and a digest file."""
    whole = (frame("record", -60), *records, frame("record", 60))
    for number, each in enumerate(whole):
        path = directory / f"AWSLogs/111122223333/CloudTrail/eu-central-1/{number}.json.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(json.dumps({"Records": [each]}).encode()))
    (directory / "digest.json.gz").write_bytes(gzip.compress(b'{"awsAccountId":"111122223333","logFiles":[]}'))
    return directory


KEYS = ("--key", str(LOG.key), "--key", str(OTHER.key))


def test_logs_of_all_nodes_agree_with_the_trail(run: Run, tmp_path: Path, logs: list[Path]) -> None:
    path = trail(tmp_path / "trail", record("a"), record("b", "GenerateDataKey"))
    done = run("audit", "reconcile", *logs, "--cloudtrail", path, *KEYS).ok()
    assert "matched: 4\n" in done.out
    assert "Both sides agree." in done.err


def test_an_aws_success_that_the_hsm_never_did_is_an_alarm(run: Run, tmp_path: Path, logs: list[Path]) -> None:
    path = trail(tmp_path / "trail", record("a"), record("b", "GenerateDataKey"), record("c"))
    done = run("audit", "reconcile", *logs, "--cloudtrail", path, *KEYS)
    assert done.code == ExitCode.EVIDENCE
    assert (
        "ALARM: c 2026-11-25T12:00:00Z Decrypt of key-1 succeeded for AWS, and no such request came here" in done.out
    )
    assert "1 successes of AWS that the HSM never had" in done.err
    as_json = run("audit", "reconcile", *logs, "--cloudtrail", path, *KEYS, "--json").json
    assert (as_json["agrees"], as_json["never_done"], as_json["matched"]) == (False, 1, 4)
    assert as_json["differences"]["ALARM"][0]["request_id"] == "c"


def test_a_node_that_was_forgotten_shows(run: Run, tmp_path: Path, logs: list[Path]) -> None:
    path = trail(tmp_path / "trail", record("a"), record("b", "GenerateDataKey"))
    done = run("audit", "reconcile", logs[0], "--cloudtrail", path, *KEYS)
    assert (done.code, "ALARM: b " in done.out) == (ExitCode.EVIDENCE, True)


def test_a_log_that_was_changed_is_not_compared(run: Run, tmp_path: Path, logs: list[Path]) -> None:
    path = trail(tmp_path / "trail", record("a"), record("b"))
    (segment,) = (logs[1] / "segments").rglob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b"Encrypt", b"Decrypt"))
    done = run("audit", "reconcile", *logs, "--cloudtrail", path, *KEYS)
    assert (done.code, "ALARM" in done.out, "matched" in done.out) == (ExitCode.EVIDENCE, False, False)


@pytest.mark.parametrize(
    "content",
    [b"not compressed", gzip.compress(b"{}")[:-4], gzip.compress(b"no JSON")],
    ids=["not compressed", "truncated", "no JSON"],
)
def test_a_file_that_is_no_trail_is_named(run: Run, tmp_path: Path, logs: list[Path], content: bytes) -> None:
    (tmp_path / "wrong.json.gz").write_bytes(content)
    done = run("audit", "reconcile", *logs, "--cloudtrail", tmp_path / "wrong.json.gz", *KEYS)
    assert (done.code, "wrong.json.gz" in done.err) == (ExitCode.CONFIGURATION, True)
