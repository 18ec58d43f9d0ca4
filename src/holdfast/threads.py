"""Threads that must not end while the process serves."""

import errno
import threading
import time
from collections.abc import Callable

RESTART_PAUSE = 0.5
"""Seconds between a failure and the next attempt."""
_RECOVERED = 10.0
"""Seconds without a failure after which a thread counts as well again."""


class LivingThread:
    """A daemon thread whose work is started again whenever it ends with an exception.

    `work` returns when it has been asked to stop, and then the thread ends. `on_failure` is given a sentence for the
    operator; it must not raise.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], None],
        *,
        on_failure: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.failures = 0
        self._work = work
        self._on_failure = on_failure
        self._monotonic = monotonic
        self._failed_at: float | None = None
        self._reason = ""
        self._started = False
        self._finished = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin. Raises OSError (EAGAIN) if the system gives no thread."""
        try:
            self._thread.start()
        except RuntimeError:
            # The only one that a thread started once can raise.
            limit = "raise TasksMax= of the service, or `ulimit -u`"
            raise OSError(errno.EAGAIN, f"the system gives no thread for {self.name}: {limit}") from None
        self._started = True

    def is_alive(self) -> bool:
        """Whether the thread exists."""
        return self._thread.is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Do not restart the work again, and wait for it to end; seconds."""
        self._stopping.set()
        if self._started:
            self._thread.join(timeout)

    def trouble(self) -> str | None:
        """What is wrong with the thread, for /ready; None if it runs, or has ended as it should."""
        if self._started and not self._finished and not self._thread.is_alive():
            return f"the thread {self.name} has ended"
        if self._failed_at is not None and self._monotonic() - self._failed_at < _RECOVERED:
            return f"the thread {self.name} fails and is restarted: {self._reason}"
        return None

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._work()
            except Exception as error:  # noqa: BLE001 (any mistake in the work is what this class is for)
                self.failures += 1
                self._failed_at = self._monotonic()
                self._reason = f"{type(error).__name__}: {error}"
                self._on_failure(f"the thread {self.name} failed and is restarted: {self._reason}")
                self._stopping.wait(RESTART_PAUSE)
            else:
                break
        self._finished = True
