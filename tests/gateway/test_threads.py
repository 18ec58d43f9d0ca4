"""Threads that are restarted when their work fails."""

from __future__ import annotations

import threading

import pytest
from tests.waiting import PATIENCE

from holdfast import threads
from holdfast.threads import LivingThread


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "RESTART_PAUSE", 0.0)


def test_work_that_fails_is_started_again_and_reported() -> None:
    said: list[str] = []
    runs = iter([ValueError("first"), MemoryError(), None])
    done = threading.Event()

    def work() -> None:
        error = next(runs)
        if error is not None:
            raise error
        done.set()

    thread = LivingThread("feed", work, on_failure=said.append)
    thread.start()
    assert done.wait(PATIENCE)
    thread.join(PATIENCE)
    assert thread.failures == 2
    assert said == [
        "the thread feed failed and is restarted: ValueError: first",
        "the thread feed failed and is restarted: MemoryError: ",
    ]


def test_a_failure_shows_as_trouble_until_the_work_has_run_well_for_a_while() -> None:
    now = 100.0
    failed, again = threading.Event(), threading.Event()

    def work() -> None:
        if not failed.is_set():
            failed.set()
            raise OSError("no descriptors")
        again.wait(PATIENCE)

    thread = LivingThread("feed", work, on_failure=lambda _: None, monotonic=lambda: now)
    assert thread.trouble() is None
    thread.start()
    assert failed.wait(PATIENCE)
    while not thread.failures:
        pass
    assert thread.trouble() == "the thread feed fails and is restarted: OSError: no descriptors"
    now += 11
    assert thread.trouble() is None
    again.set()
    thread.join(PATIENCE)
    assert thread.trouble() is None


def test_work_that_fails_while_the_thread_is_to_end_is_not_started_again() -> None:
    begun, end = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        end.wait(PATIENCE)
        raise OSError

    thread = LivingThread("feed", work, on_failure=lambda _: None)
    thread.start()
    assert begun.wait(PATIENCE)
    thread.join(0)
    end.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert thread.failures == 1


def test_a_system_without_another_thread_is_an_error_that_names_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="no thread for feed: raise TasksMax="):
        LivingThread("feed", lambda: None, on_failure=print).start()
