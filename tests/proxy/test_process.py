"""What the supervisor takes in from a worker."""

from __future__ import annotations

import multiprocessing
import multiprocessing.spawn
import os
import pickle
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

from holdfast.proxy.messages import Ready
from holdfast.proxy.process import Inbox, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path

WITHIN = 5.0


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
    assert woken.wait(WITHIN)
    assert list(inbox.take()) == [Ready()]
    theirs.close()
    inbox.wait_for_end(WITHIN)


def test_an_interpreter_that_cannot_be_executed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\n")
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(interpreter))
    process = context.Process(target=print)
    process.start()
    process.join(WITHIN)
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
    inbox.wait_for_end(WITHIN)
    assert list(inbox.take()) == [Ready()] * count
