"""The event log: what a line says, what it can never say, and what happens when it cannot be written."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, cast

import pytest
from tests.waiting import PATIENCE

from holdfast.gateway.observe import audit_spool, event_log
from holdfast.gateway.observe.audit_spool import AuditSpool
from holdfast.gateway.observe.event_log import CAPACITY, REFUSALS_AT_ONCE, EventLog, Record, ascii_only, decision
from holdfast.gateway.observe.log_sink import LogSink, NotWritten
from holdfast.hsm.pkcs11 import ckr
from holdfast.protocols.xks.event import Event, RecordUnavailable
from holdfast.xks.encoding import decode_json_object
from holdfast.xks.errors import ErrorName
from holdfast.xks.messages import RequestMetadata
from holdfast.xks.types import Operation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from holdfast.gateway.observe.event_log import Sink
    from holdfast.store.spool import SpoolWriter

AUDIT = Record(0, Event(access_key_id="A" * 20), "")
REFUSAL = Record(0, Event(status=401, error=ErrorName.AUTHENTICATION_FAILED), "192.0.2.1")
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
        log.append(AUDIT)
    log.close()
    assert log.lost == 3


def test_a_blocked_sink_loses_what_exceeds_the_capacity_and_delays_nobody() -> None:
    sink = _Blocked()
    log = EventLog(sink, ckr_name=ckr.name, worker=1, on_warning=print)
    log.start()
    log.append(AUDIT)
    assert sink.entered.wait(PATIENCE)
    for _ in range(CAPACITY + 7):
        log.append(AUDIT)
    assert log.lost == 7
    sink.released.set()
    log.close()


def test_refusals_before_authentication_are_sampled_and_never_displace_the_audit_record(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = EventLog(sink_of(path), ckr_name=ckr.name, worker=1, on_warning=print, monotonic=lambda: 0.0)
    for _ in range(CAPACITY):
        log.append(REFUSAL)
    for _ in range(CAPACITY):
        log.append(AUDIT)
    log.start()
    log.close()
    lines = [decode_json_object(line) for line in path.read_bytes().splitlines()]
    assert log.lost == 0
    assert sum("accessKeyId" in line for line in lines) == CAPACITY
    assert sum(line.get("errorName") == "AuthenticationFailedException" for line in lines) == REFUSALS_AT_ONCE
    left_out = CAPACITY - REFUSALS_AT_ONCE
    (summary,) = (line for line in lines if "leftOut" in line)
    assert (summary["leftOut"], summary["detail"]) == (
        left_out,
        f"{left_out} refusals before authentication were left out",
    )


def test_lines_wait_for_a_sink_that_takes_nothing_and_are_written_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "RETRY", 0.01)
    said: list[str] = []
    sink = _FullAtFirst(sink_of(tmp_path / "log"))
    log = EventLog(sink, ckr_name=ckr.name, worker=1, on_warning=said.append)
    log.start()
    for number in range(5):
        log.append(Record(number, Event(access_key_id="A" * 20), ""))
    assert sink.refused.wait(PATIENCE)
    assert log.trouble() == "the event log cannot be written: No space left on device"
    sink.full = False
    assert sink.taken.wait(PATIENCE)
    log.close()
    assert log.trouble() is None
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert [decode_json_object(line)["timestamp"][18:20] for line in lines] == [f"{n}." for n in range(5)]
    assert said == [
        f"the event log cannot be written: No space left on device; up to {CAPACITY} lines wait until it can",
        "the event log can be written again",
    ]


def test_a_write_that_does_not_return_counts_as_a_failure_while_it_lasts() -> None:
    now = 0.0
    sink = _Blocked()
    log = EventLog(sink, ckr_name=ckr.name, worker=1, on_warning=print, required=True, monotonic=lambda: now)
    log.start()
    log.append(AUDIT)
    assert sink.entered.wait(PATIENCE)
    assert log.trouble() is None
    now = 3.0
    assert "a write has not returned for 3 s" in str(log.trouble())
    with pytest.raises(RecordUnavailable):
        log.require()
    sink.released.set()
    log.close()
    assert log.trouble() is None


def test_a_record_whose_answer_was_withheld_is_not_written_later_and_does_not_count_as_success(
    tmp_path: Path,
) -> None:
    sink = _FullAtFirst(sink_of(tmp_path / "log"))
    log = EventLog(sink, ckr_name=ckr.name, worker=1, on_warning=print, required=True)

    async def withheld() -> bool:
        # The thread does not run yet: nothing is written in time.
        return await log.recorded(AUDIT, within=0.01)

    assert asyncio.run(withheld()) is False
    log.start()
    log.close()
    assert not sink.refused.is_set()
    assert (tmp_path / "log").read_bytes() == b""


def test_an_event_loop_that_has_ended_stops_no_lines(tmp_path: Path) -> None:
    """At the end of a worker an answer may be withdrawn while its record is written."""
    log = EventLog(sink_of(tmp_path / "log"), ckr_name=ckr.name, worker=1, on_warning=print, required=True)

    async def ask() -> None:
        await log.recorded(AUDIT, within=0.001)

    asyncio.run(ask())
    log._audit[0].forgotten = False  # as if its time were not over
    log.append(AUDIT)
    log.start()
    log.close()
    assert log.thread.failures == log.lost == 0
    assert (tmp_path / "log").read_bytes().count(b"\n") == 2


def test_half_a_line_is_cut_off_the_file_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    sink = sink_of(path)
    sink.write(b"first\n")
    real = os.write
    pieces = iter([8, None])

    def nearly_full(descriptor: int, data: bytes) -> int:
        room = next(pieces)
        if room is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:room])

    monkeypatch.setattr(os, "write", nearly_full)
    with pytest.raises(NotWritten) as caught:
        sink.write(b"second\nthird\n")
    monkeypatch.undo()
    assert caught.value.lines == 1
    assert path.read_bytes() == b"first\nsecond\n"
    sink.write(b"third\n")
    assert path.read_bytes() == b"first\nsecond\nthird\n"


def test_half_a_line_in_a_pipe_is_ended_before_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    turn = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    sink = LogSink(None, turn_file=turn)
    monkeypatch.setattr(sink, "_descriptor", writing)
    real = os.write
    pieces = iter([3, None])

    def gone(descriptor: int, data: bytes) -> int:
        room = next(pieces)
        if room is None:
            raise BrokenPipeError
        return real(descriptor, data[:room])

    monkeypatch.setattr(os, "write", gone)
    with pytest.raises(NotWritten):
        sink.write(b"second\n")
    monkeypatch.undo()
    monkeypatch.setattr(sink, "_descriptor", writing)
    sink.write(b"third\n")
    assert os.read(reading, 100) == b"sec\nthird\n"
    for descriptor in (reading, writing, turn):
        os.close(descriptor)


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
from holdfast.gateway.observe.log_sink import LogSink
sink = LogSink(None, turn_file=int(sys.argv[1]))
line = (sys.argv[2] * 30_000 + "\\n").encode()
for _ in range(20):
    sink.write(line)
"""


@pytest.mark.programs
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
    assert [writer.wait(PATIENCE) for writer in writers] == [0, 0]
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


class _FullAtFirst:
    """A sink that is full until `full` is False."""

    def __init__(self, sink: LogSink) -> None:
        self.full = True
        self.refused, self.taken = threading.Event(), threading.Event()
        self._sink = sink

    def write(self, lines: bytes) -> None:
        """No space, at first."""
        if self.full:
            self.refused.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        self._sink.write(lines)
        self.taken.set()

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
        self.released.wait(PATIENCE)

    def reopen(self) -> None:
        """Nothing to open."""


# ---- the audit log's copy


class _Spool:
    """A SpoolWriter whose disk can be full, and that says what it was given."""

    def __init__(self) -> None:
        self.full = False
        self.lines: list[bytes] = []
        self.skipped = 0
        self.closed = False

    def write(self, lines: list[bytes]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.lines += lines

    def probe(self) -> None:
        self.write([])

    def skip(self, count: int) -> None:
        self.skipped += count

    def due_in(self) -> float | None:
        return None

    def rotate(self) -> None:
        """Nothing."""

    def close(self) -> None:
        self.closed = True


def spooling(sink: Sink, spool: _Spool, *, fail_closed: bool = False, required: bool = False) -> EventLog:
    copy = AuditSpool(cast("SpoolWriter", spool), on_warning=print)
    log = EventLog(
        sink,
        ckr_name=ckr.name,
        worker=1,
        on_warning=print,
        spool=copy,
        fail_closed=fail_closed,
        required=required,
    )
    log.start()
    return log


def test_the_audit_log_gets_the_lines_of_the_audit_record_and_no_others(tmp_path: Path) -> None:
    spool = _Spool()
    log = spooling(sink_of(tmp_path / "log"), spool)
    for record in (AUDIT, REFUSAL, AUDIT):
        log.append(record)
    log.close()
    lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    assert spool.lines == [line for line in lines if b"accessKeyId" in line]
    assert (len(spool.lines), spool.skipped, spool.closed) == (2, 0, True)


def test_a_full_event_log_takes_nothing_from_the_audit_log_and_repeats_nothing_there() -> None:
    spool = _Spool()
    log = spooling(_Full(), spool)
    for _ in range(3):
        log.append(AUDIT)
    log.close()
    assert (log.lost, len(spool.lines), spool.skipped) == (3, 3, 0)


def test_a_full_audit_log_takes_nothing_from_the_event_log_and_gets_its_lines_later(tmp_path: Path) -> None:
    spool = _Spool()
    spool.full = True
    log = spooling(sink_of(tmp_path / "log"), spool)

    async def several() -> None:
        log.append(AUDIT)
        await _until(lambda: log.audit_trouble() is not None)
        assert (log.trouble(), log.obstacle()) == (None, None)
        spool.full = False
        await _until(lambda: log.audit_trouble() is None)

    asyncio.run(several())
    log.close()
    assert (len(spool.lines), spool.skipped) == (1, 0)
    assert len((tmp_path / "log").read_bytes().splitlines()) == 1


def test_what_never_could_be_spooled_is_counted() -> None:
    spool = _Spool()
    spool.full = True
    copy = AuditSpool(cast("SpoolWriter", spool), on_warning=print)
    assert not copy.write([b"1"])
    copy.keep([b"1"] * (audit_spool.CAPACITY - 1))
    copy.keep([b"2"] * 3)
    assert spool.skipped == 2
    copy.close()
    assert (spool.skipped, spool.closed) == (audit_spool.CAPACITY + 2, True)


def test_a_full_audit_log_has_not_recovered_because_nothing_waits() -> None:
    """The line of a withheld answer is not kept, and nothing else may come."""
    spool = _Spool()
    spool.full = True
    copy = AuditSpool(cast("SpoolWriter", spool), on_warning=print)
    assert not copy.write([b"withheld"])
    assert not copy.write([])
    assert copy.trouble() is not None
    spool.full = False
    assert copy.write([])
    assert copy.trouble() is None
    assert spool.lines == []


@pytest.mark.parametrize("sink_fails", [False, True])
def test_fail_closed_withholds_the_answer_whose_record_the_audit_log_cannot_take(
    tmp_path: Path,
    sink_fails: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    """Whether the event log can be written does not matter to it."""
    spool = _Spool()
    log = spooling(_Full() if sink_fails else sink_of(tmp_path / "log"), spool, fail_closed=True)

    async def ask() -> list[bool]:
        first = await log.recorded(AUDIT, within=5)
        spool.full = True
        second = await log.recorded(AUDIT, within=5)
        await _until(lambda: log.obstacle() is not None)
        with pytest.raises(RecordUnavailable, match="audit log"):
            log.require()
        spool.full = False
        await _until(lambda: log.obstacle() is None)
        return [first, second, await log.recorded(AUDIT, within=5)]

    assert asyncio.run(ask()) == [True, False, True]
    log.close()
    assert len(spool.lines) == 2


async def _until(condition: Callable[[], bool]) -> None:
    """What the log's thread does shows nothing that could be awaited."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError
