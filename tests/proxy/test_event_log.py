"""The event log: what a line says, what it can never say, and what happens when it cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from holdfast.ekm.pkcs11 import ckr
from holdfast.operations.event import Event
from holdfast.proxy.event_log import CAPACITY, EventLog, Record, ascii_only, decision
from holdfast.proxy.log_sink import LogSink
from holdfast.xks.encoding import decode_json_object
from holdfast.xks.errors import ErrorName
from holdfast.xks.messages import RequestMetadata
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = 'a"\\\n\r\t\x00\x1b[31m\x7f\x9b1m\u2028\u202e\ufeff😀' + "}{"


def write(sink: LogSink, *records: Record) -> EventLog:
    log = EventLog(sink, ckr_name=ckr.name, worker=1, on_warning=print)
    log.start()
    for record in records:
        log.append(record)
    log.close()
    return log


def sink_of(path: Path) -> LogSink:
    turn = os.open(path.parent, os.O_TMPFILE | os.O_RDWR)
    return LogSink(path, turn_file=turn)


def test_a_line_has_every_part_of_the_request(tmp_path: Path) -> None:
    metadata = RequestMetadata("Encrypt", "id-1", "arn:principal", "vpc-1", "vpce-1", "arn:key", "ebs")
    event = Event(
        Operation.ENCRYPT,
        "store",
        "key-1",
        3,
        "A" * 20,
        metadata,
        500,
        ErrorName.INTERNAL,
        "why",
        ("all",),
        "C_Encrypt",
        0x30,
    )
    event.authentication, event.total, event.bytes_in, event.bytes_out = 0.001, 0.01, 7, 8
    event.timing.queue, event.timing.hsm = 0.002, 0.003
    write(sink_of(tmp_path / "log"), Record(1_800_000_000.5, event, "192.0.2.1"))
    assert decode_json_object((tmp_path / "log").read_bytes()) == {
        "timestamp": "2027-01-15T08:00:00.500Z",
        "decision": "fail",
        "status": 500,
        "milliseconds": {"authentication": 1.0, "queue": 2.0, "hsm": 3.0, "total": 10.0},
        "bytesIn": 7,
        "bytesOut": 8,
        "client": "192.0.2.1",
        "worker": 1,
        "operation": "Encrypt",
        "kmsRequestId": "id-1",
        "keystore": "store",
        "externalKeyId": "key-1",
        "generation": 3,
        "accessKeyId": "A" * 20,
        "awsPrincipalArn": "arn:principal",
        "kmsKeyArn": "arn:key",
        "kmsOperation": "Encrypt",
        "kmsViaService": "ebs",
        "awsSourceVpc": "vpc-1",
        "awsSourceVpce": "vpce-1",
        "errorName": "InternalException",
        "detail": "why",
        "policies": ["all"],
        "function": "C_Encrypt",
        "ckr": "CKR_DEVICE_ERROR (0x30)",
    }


def test_nothing_that_a_caller_sends_ends_a_line_or_speaks_to_a_terminal(tmp_path: Path) -> None:
    event = Event(Operation.ENCRYPT, metadata=RequestMetadata(*[HOSTILE] * 7), detail=HOSTILE)
    write(sink_of(tmp_path / "log"), Record(0, event, "::1"), Record(0, event, "::1"))
    raw = (tmp_path / "log").read_bytes()
    assert set(raw) <= {*range(0x20, 0x7F), 0x0A}
    lines = raw.splitlines()
    assert len(lines) == 2
    assert decode_json_object(lines[0])["kmsRequestId"] == HOSTILE


def test_escaping_leaves_ascii_alone() -> None:
    line = b'{"a":"b\\n"}'
    assert ascii_only(line) is line


@pytest.mark.parametrize("error", [None, *ErrorName])
def test_every_error_name_has_a_decision(error: ErrorName | None) -> None:
    expected = {
        None: "allow",
        ErrorName.AUTHENTICATION_FAILED: "deny",
        ErrorName.ACCESS_DENIED: "deny",
        ErrorName.INVALID_STATE: "deny",
    }
    assert decision(Event(error=error)) == expected.get(error, "fail")


def test_a_full_disk_loses_lines_and_counts_them() -> None:
    log = EventLog(_Full(), ckr_name=ckr.name, worker=1, on_warning=print)
    log.start()
    for _ in range(3):
        log.append(Record(0, Event(), ""))
    log.close()
    assert log.lost == 3


def test_a_blocked_sink_loses_what_exceeds_the_capacity_and_delays_nobody() -> None:
    sink = _Blocked()
    log = EventLog(sink, ckr_name=ckr.name, worker=1, on_warning=print)
    log.start()
    log.append(Record(0, Event(), ""))
    assert sink.entered.wait(5)
    for _ in range(CAPACITY + 7):
        log.append(Record(0, Event(), ""))
    assert log.lost == 7
    sink.released.set()
    log.close()


def test_reopening_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = sink_of(path)
    sink.write(b"old\n")
    path.rename(tmp_path / "rotated")
    sink.reopen()
    sink.write(b"new\n")
    assert (path.read_bytes(), (tmp_path / "rotated").read_bytes()) == (b"new\n", b"old\n")


def test_a_name_that_cannot_be_opened_again_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "log"
    path.parent.mkdir()
    sink = sink_of(path)
    path.parent.rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError):
        sink.reopen()
    sink.write(b"line\n")
    assert (tmp_path / "moved" / "log").read_bytes() == b"line\n"


_WRITER = """
import sys
from holdfast.proxy.log_sink import LogSink
sink = LogSink(None, turn_file=int(sys.argv[1]))
line = (sys.argv[2] * 30_000 + "\\n").encode()
for _ in range(20):
    sink.write(line)
"""


def test_long_lines_of_two_workers_do_not_mix_in_a_pipe(tmp_path: Path) -> None:
    turn = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    reading, writing = os.pipe()
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(turn), letter], stdout=writing, pass_fds=[turn])
        for letter in "ab"
    ]
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().splitlines()
    assert [writer.wait(10) for writer in writers] == [0, 0]
    assert sorted(lines) == [b"a" * 30_000] * 20 + [b"b" * 30_000] * 20
    os.close(turn)


class _Full:
    """A sink on a full disk."""

    def write(self, lines: bytes) -> None:
        """No space."""
        with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123 (a device)
            full.write(lines)

    def reopen(self) -> None:
        """Nothing to open."""


class _Blocked:
    """A sink that nobody reads, until `released`."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()

    def write(self, lines: bytes) -> None:  # noqa: ARG002 (goes nowhere)
        """Block."""
        self.entered.set()
        self.released.wait(10)

    def reopen(self) -> None:
        """Nothing to open."""
