"""What the supervisor takes in from a worker."""

from __future__ import annotations

import multiprocessing
import multiprocessing.spawn
import os
import pickle
import struct
import threading
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import pytest
from tests.waiting import PATIENCE

from holdfast.gateway.observe.messages import KeyCount, Ready, Report
from holdfast.gateway.supervisor.process import Inbox, WorkerProcess
from holdfast.gateway.worker.server import FEW_KEYS, MANY_KEYS_EVERY, KeyCounts

if TYPE_CHECKING:
    from pathlib import Path


def test_half_a_message_keeps_nobody_waiting_and_the_other_half_completes_it() -> None:
    """A worker may be stopped, or its machine may freeze, in the middle of a report."""
    ours, theirs = multiprocessing.Pipe()
    woken = threading.Event()
    inbox = Inbox(ours, woken.set)
    content = pickle.dumps(Ready())
    # multiprocessing.connection: four bytes of length, big-endian, and the pickle.
    message = struct.pack("!i", len(content)) + content
    with open(theirs.fileno(), "wb", buffering=0, closefd=False) as raw:
        raw.write(message[:-3])
        assert list(inbox.take()) == []
        raw.write(message[-3:])
    assert woken.wait(PATIENCE)
    assert list(inbox.take()) == [Ready()]
    theirs.close()
    inbox.wait_for_end(PATIENCE)


def test_an_interpreter_that_cannot_be_executed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\n")
    # Python starts this process with the same interpreter, when it first needs it.
    resource_tracker.ensure_running()
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(interpreter))
    process = context.Process(target=print)
    process.start()
    process.join(PATIENCE)
    ours, theirs = context.Pipe()
    theirs.close()
    configuration: Any = None
    worker = WorkerProcess(1, process, ours, Inbox(ours, lambda: None), configuration, started=0.0, seen=0.0)
    assert str(interpreter) in worker.death()
    assert "the service's user must be able to execute it" in worker.death()
    worker.close()


@pytest.mark.parametrize("count", [0, 3])
def test_what_was_sent_before_the_end_is_there_after_it(count: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    inbox = Inbox(ours, lambda: None)
    for _ in range(count):
        theirs.send(Ready())
    theirs.close()
    inbox.wait_for_end(PATIENCE)
    assert list(inbox.take()) == [Ready()] * count


@pytest.mark.parametrize(("keys", "lists"), [(FEW_KEYS, 3), (FEW_KEYS + 1, 2)], ids=["few keys", "many keys"])
def test_the_counts_of_many_keys_are_reported_less_often(keys: int, lists: int) -> None:
    clock = iter((0.0, MANY_KEYS_EVERY / 2, MANY_KEYS_EVERY)).__next__
    counts = KeyCounts(lambda: dict.fromkeys(range(keys), 1), lambda row: ("main", str(row), 1), clock=clock)
    reported = [counts.fresh() for _ in range(3)]
    assert [each for each in reported if each is not None] == [
        [KeyCount("main", str(row), 1, 1) for row in range(keys)]
    ] * lists


def test_a_report_without_counts_of_keys_keeps_those_of_the_one_before() -> None:
    ours, theirs = multiprocessing.Pipe()
    process: Any = None
    worker = WorkerProcess(1, process, ours, Inbox(ours, lambda: None), process, started=0.0, seen=0.0)
    counts = [KeyCount("main", "key", 1, 4096)]
    for connections, encryptions in ((1, counts), (2, None), (3, None)):
        theirs.send(Report([], connections, 0, 0, 0.0, [], encryptions))
    theirs.close()
    worker.receive_last(1.0)
    assert worker.report is not None
    assert (worker.report.connections, worker.report.encryptions) == (3, counts)
