"""From the workers' spool into the log: each event once, whatever dies at whatever moment."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.logs import LOG, NOW

from holdfast.audit.records import Actor, Exhibit, Lost, Segment, decode, segment_lines, segment_path
from holdfast.audit.search import SignedLog
from holdfast.audit.verify import Verified, verify_log
from holdfast.store import spool
from holdfast.store.log_directory import LogDirectory, directory_reader
from holdfast.store.node_log import SPOOL, NodeLog
from holdfast.store.spool import SpoolWriter, spooled

SIGNERS = [(LOG.key, LOG.sign)]


@dataclass
class Clock:
    """Seconds that pass when the test says so."""

    now: float = 0.0


def lines(first: int, number: int) -> list[bytes]:
    return [b'{"n":%d}\n' % n for n in range(first, first + number)]


def writer(directory: Path, stream: str = "s1", *, clock: Clock | None = None) -> SpoolWriter:
    return SpoolWriter(directory / SPOOL, stream, age=10.0, monotonic=lambda: (clock or Clock()).now)


def killed(worker: SpoolWriter) -> None:
    """The kernel does this when a process ends."""
    os.close(worker._lock)
    os.close(worker._file)


def sealed(directory: Path) -> Verified:
    with LogDirectory(directory, SIGNERS) as log:
        node = NodeLog(log, directory / SPOOL, now=lambda: NOW)
        node.seal()
        node.sign()
    return verify_log(directory_reader(directory), [LOG.key])


def records(directory: Path) -> list[Segment | Lost]:
    with LogDirectory(directory, SIGNERS) as log:
        found = [decode(entry) for entry in log.entries()]
    return [record for record in found if isinstance(record, Segment | Lost)]


def logged(directory: Path, stream: str = "s1") -> list[bytes]:
    """Every event of a stream that the log has, in its order."""
    read = directory_reader(directory)
    mine = [r for r in records(directory) if isinstance(r, Segment) and r.stream == stream]
    return [line for record in mine for line in segment_lines(read(segment_path(record.sha256)) or b"")]


def test_a_look_whether_the_disk_takes_bytes_leaves_none(tmp_path: Path) -> None:
    worker = writer(tmp_path)
    worker.write(lines(0, 2))
    worker.probe()
    worker.write(lines(2, 1))
    killed(worker)
    sealed(tmp_path)
    assert logged(tmp_path) == [line.removesuffix(b"\n") for line in lines(0, 3)]


def test_a_file_is_logged_when_the_next_one_has_begun(tmp_path: Path) -> None:
    clock = Clock()
    worker = writer(tmp_path, clock=clock)
    worker.write(lines(1, 3))
    assert sealed(tmp_path).events == 0
    clock.now = 10.0
    worker.rotate()
    verified = sealed(tmp_path)
    assert (verified.events, verified.lost, verified.cut) == (3, 0, 0)
    worker.write(lines(4, 2))
    worker.close()
    assert sealed(tmp_path).events == 5
    assert not list(spooled(tmp_path / SPOOL))
    assert logged(tmp_path) == [line.rstrip() for line in lines(1, 5)]


def test_a_full_file_is_complete_whatever_its_age(tmp_path: Path) -> None:
    worker = writer(tmp_path)
    for first in range(1, spool.MAX_LINES + 2, 512):
        worker.write(lines(first, 512))
        worker.rotate()
    assert sealed(tmp_path).events == spool.MAX_LINES


def test_an_idle_worker_leaves_nothing(tmp_path: Path) -> None:
    worker = writer(tmp_path)
    assert worker.due_in() is None
    worker.close()
    assert sealed(tmp_path).signed.checkpoint.size == 0


def test_what_a_killed_worker_wrote_is_logged_and_its_end_is_said(tmp_path: Path) -> None:
    worker = writer(tmp_path)
    worker.write(lines(1, 3))
    os.write(worker._file, b'{"half')
    killed(worker)
    verified = sealed(tmp_path)
    assert (verified.events, verified.cut) == (3, 1)
    assert not list(spooled(tmp_path / SPOOL))


def test_lost_events_are_counted_where_they_were_lost(tmp_path: Path) -> None:
    clock = Clock()
    worker = writer(tmp_path, clock=clock)
    worker.write(lines(1, 2))
    worker.skip(5)
    clock.now = 10.0
    worker.rotate()
    worker.skip(7)
    clock.now = 20.0
    worker.rotate()
    worker.close()
    verified = sealed(tmp_path)
    assert (verified.events, verified.lost) == (2, 12)
    assert [(r.first, r.last) for r in records(tmp_path)] == [(1, 7), (8, 14)]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = writer(tmp_path)
    worker.write(lines(1, 1))
    write = os.write
    with monkeypatch.context() as patch:
        calls = count()

        def fails(descriptor: int, data: bytes) -> int:
            if next(calls):
                raise OSError(28, "No space left on device")
            return write(descriptor, data[:5])

        patch.setattr(os, "write", fails)
        with pytest.raises(OSError, match="No space"):
            worker.write(lines(2, 2))
    worker.write(lines(2, 1))
    worker.close()
    assert sealed(tmp_path).events == 2
    assert logged(tmp_path) == [line.rstrip() for line in lines(1, 2)]


def test_a_spooled_file_that_vanished_is_a_loss_and_not_a_gap(tmp_path: Path) -> None:
    clock = Clock()
    worker = writer(tmp_path, clock=clock)
    for first in (1, 3, 5):
        worker.write(lines(first, 2))
        clock.now += 10.0
        worker.rotate()
        if first == 1:
            sealed(tmp_path)
    (tmp_path / SPOOL / "s1" / "3.jsonl").unlink()
    worker.close()
    verified = sealed(tmp_path)
    assert (verified.events, verified.lost) == (4, 2)


def test_a_file_with_more_lines_than_numbers_is_no_evidence(tmp_path: Path) -> None:
    worker = writer(tmp_path)
    worker.write(lines(1, 2))
    worker.close()
    with (tmp_path / SPOOL / "s1" / "1.jsonl").open("ab") as file:
        file.write(b"{}\n")
    verified = sealed(tmp_path)
    assert (verified.events, verified.lost) == (0, 2)


def days_of_events(directory: Path, days: int) -> None:
    """A segment of two events each day."""
    clock = Clock()
    worker = writer(directory, clock=clock)
    for day in range(days):
        worker.write(lines(2 * day + 1, 2))
        clock.now += 10.0
        worker.rotate()
        with LogDirectory(directory, SIGNERS) as log:
            NodeLog(log, directory / SPOOL, now=partial(_after, day)).seal()
            log.checkpoint()
    worker.close()


def _after(days: int) -> datetime:
    return NOW + timedelta(days=days)


def prune(directory: Path, *, keep_from_day: int) -> int:
    with LogDirectory(directory, SIGNERS) as log:
        node = NodeLog(log, directory / SPOOL, now=lambda: NOW + timedelta(days=100))
        return node.prune(NOW + timedelta(days=keep_from_day), actor=Actor(name="test", known_by="test"))


def test_old_segments_are_deleted_and_their_proofs_stay_valid(tmp_path: Path) -> None:
    days_of_events(tmp_path, 5)
    read = directory_reader(tmp_path)
    proof = SignedLog(read).prove(1, 0)
    assert (prune(tmp_path, keep_from_day=3), prune(tmp_path, keep_from_day=3)) == (3, 0)
    assert len(list((tmp_path / "segments").rglob("*.jsonl"))) == 2
    verified = verify_log(read, [LOG.key])
    assert (verified.events, verified.pruned, verified.records["pruned"]) == (10, 3, 1)
    exhibit = Exhibit.parse(proof.extra)
    proof.check(exhibit.entry.encode(), [LOG.key])
    assert (exhibit.record(), exhibit.event) == (decode(exhibit.entry.encode()), '{"n":3}')
    later = SignedLog(read).prove(1)
    later.check(exhibit.entry.encode(), [LOG.key])


def test_a_crash_while_segments_are_deleted_is_made_good_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days_of_events(tmp_path, 5)
    with monkeypatch.context() as patch:
        patch.setattr(LogDirectory, "delete_segment", _crash_at_second(LogDirectory.delete_segment))
        with pytest.raises(Crash):
            prune(tmp_path, keep_from_day=4)
    assert verify_log(directory_reader(tmp_path), [LOG.key]).pruned == 1
    assert prune(tmp_path, keep_from_day=4) == 3
    assert verify_log(directory_reader(tmp_path), [LOG.key]).pruned == 4


def _crash_at_second(real: Callable[..., Any]) -> Callable[..., Any]:
    calls = count()

    def call(*arguments: Any) -> Any:
        if next(calls) == 1:
            raise Crash
        return real(*arguments)

    return call


class Crash(BaseException):
    """The process ends here."""


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_crash_between_any_two_steps_loses_and_repeats_nothing(data: st.DataObject) -> None:
    """Every write, rename and deletion of the log and of the spool is a step."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        directory = Path(name)
        clock = Clock()
        worker = writer(directory, clock=clock)
        left = [0]

        def step(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    raise Crash
                return real(*arguments, **options)

            return call

        for owner, attribute in (
            (LogDirectory, "store_segment"),
            (LogDirectory, "append"),
            (LogDirectory, "checkpoint"),
            (spool.SpooledStream, "remove"),
            (spool.SpooledStream, "remove_all"),
            (Path, "unlink"),
            (Path, "replace"),
        ):
            patch.setattr(owner, attribute, step(getattr(owner, attribute)))
        written = 0
        for _ in range(data.draw(st.integers(1, 4))):
            for _ in range(data.draw(st.integers(0, 3))):
                number = data.draw(st.integers(1, 5))
                worker.write(lines(written + 1, number))
                written += number
                clock.now += 10.0
                worker.rotate()
            left[0] = data.draw(st.integers(1, 30))
            with suppress(Crash):
                sealed(directory)
        left[0] = 0
        worker.close()
        assert sealed(directory).events == written
        assert logged(directory) == [line.rstrip() for line in lines(1, written)]


_WORKER = """
import sys, time
from pathlib import Path
from holdfast.store.spool import SpoolWriter
worker = SpoolWriter(Path(sys.argv[1]), sys.argv[2], age=0.02, monotonic=time.monotonic)
number = 0
while True:
    number += 1
    worker.write([b'{"n":%d}\\n' % number])
    worker.rotate()
    print(number, flush=True)
"""


@pytest.mark.programs
@pytest.mark.parametrize("number", range(3))
def test_a_worker_process_killed_by_the_kernel_loses_nothing_that_it_wrote(tmp_path: Path, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WORKER, str(tmp_path / SPOOL), "s1"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for turn in range(150 * (number + 1)):
            process.stdout.readline()
            if number == 2 and turn % 50 == 0:
                sealed(tmp_path)
        process.send_signal(signal.SIGKILL)
        told = [int(line) for line in process.stdout.read().split()]
    verified = sealed(tmp_path)
    assert verified.cut == 1
    assert verified.events >= max(told, default=0)
    assert logged(tmp_path) == [line.rstrip() for line in lines(1, verified.events)]
