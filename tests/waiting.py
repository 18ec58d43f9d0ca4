"""Waits in tests: what time the machine gives to others does not count."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

# Seconds after which a test calls hung what no Stopwatch can watch: a program that it runs, a peer's answer, a
# thread. Nothing that is well takes so long, also on a machine with twenty times the work of its cores.
PATIENCE = 300.0
_LOOK = 0.01


def _tasks(process: int) -> list[Path]:
    """Of a process that may have ended."""
    try:
        return list(Path(f"/proc/{process}/task").iterdir())
    except OSError:
        return []


class Stopwatch:
    """Seconds in which the threads of these processes could run when they wanted to. This process is one of them."""

    def __init__(self, processes: Callable[[], Iterable[int]] = tuple) -> None:
        self._processes = processes
        self._began = time.monotonic()
        self._queued = self._waits()

    def seconds(self) -> float:
        """So far. Where several threads waited for a core at once, fewer than there were."""
        waits = self._waits()
        return time.monotonic() - self._began - sum(waits[task] - self._queued.get(task, 0) for task in waits) / 1e9

    def has_passed(self, limit: float) -> bool:
        """Whether more seconds have passed, and none of the threads waits for a disk."""
        if time.monotonic() - self._began <= limit or self.seconds() <= limit:
            return False
        return not any(b") D " in stat for stat in self._read("stat").values())

    def _waits(self) -> dict[Path, int]:
        """For each thread the nanoseconds that it has waited for a core."""
        return {task: int(text.split()[1]) for task, text in self._read("schedstat").items()}

    def _read(self, name: str) -> dict[Path, bytes]:
        found = {}
        for process in (os.getpid(), *self._processes()):
            for task in _tasks(process):
                with suppress(OSError):  # it has ended
                    found[task] = (task / name).read_bytes()
        return found


def eventually(
    condition: Callable[[], bool],
    *,
    within: float = 10.0,
    what: str = "what is waited for",
    processes: Callable[[], Iterable[int]] = tuple,
) -> None:
    """Wait until `condition` holds; an AssertionError after `within` seconds of a Stopwatch of these processes."""
    watch = Stopwatch(processes)
    while not condition():
        assert not watch.has_passed(within), f"not within {within} s: {what}"
        time.sleep(_LOOK)
