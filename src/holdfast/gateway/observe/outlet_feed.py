"""A worker's event lines on their way to the process of the outlets. It belongs to the event log's thread.

The workers share one end of a socket that keeps messages apart; the supervisor holds both, so that it outlives the
processes. Nothing here waits: what the socket does not take is kept, up to CAPACITY lines, and then lost.
"""

import socket
import time
from collections import deque
from contextlib import suppress
from select import POLLOUT, poll

CAPACITY = 20_000
"""Lines that wait while the process of the outlets is busy or gone."""
RETRY = 0.05
"""Seconds between two attempts while lines wait."""
_MOST = 60_000
"""Bytes of one message, less than what any Linux lets a socket hold."""
_PATIENCE = 0.5


class OutletFeed:
    """The sending end. `worker` stands in the word of what was lost."""

    def __init__(self, channel: socket.socket, *, worker: int) -> None:
        self._channel = channel
        self._worker = worker
        self._waiting: deque[bytes] = deque()
        self._untold = 0
        self.lost = 0
        """Lines that no outlet will get."""

    @property
    def has_waiting(self) -> bool:
        """Whether `flush` has something to do."""
        return bool(self._waiting or self._untold)

    def offer(self, lines: list[bytes]) -> None:
        """Send these lines, each with its newline, as soon as there is room."""
        room = max(0, CAPACITY - len(self._waiting))
        fitting = [line for line in lines[:room] if len(line) <= _MOST]
        self._waiting.extend(fitting)
        self.skip(len(lines) - len(fitting))

    def skip(self, count: int) -> None:
        """So many events have no line, and never will."""
        self.lost += count
        self._untold += count

    def flush(self) -> None:
        """Send what the socket takes now."""
        while self.has_waiting:
            if self._untold and len(self._waiting) < CAPACITY:
                self._waiting.append(b'{"lost":%d,"worker":%d}\n' % (self._untold, self._worker))
                self._untold = 0
            count, size = 0, 0
            for line in self._waiting:
                size += len(line)
                if size > _MOST:
                    break
                count += 1
            lines = [self._waiting[index] for index in range(count)]
            try:
                self._channel.send(b"".join(lines), socket.MSG_DONTWAIT)
            except OSError:
                return
            for _ in lines:
                self._waiting.popleft()

    def close(self) -> int:
        """Send what waits, for half a second at most; how many lines are left."""
        until = time.monotonic() + _PATIENCE
        ready = poll()
        with suppress(OSError):
            ready.register(self._channel, POLLOUT)
            while True:
                self.flush()
                left = until - time.monotonic()
                if not self.has_waiting or left <= 0 or not ready.poll(left * 1000):
                    break
        return len(self._waiting) + self._untold
