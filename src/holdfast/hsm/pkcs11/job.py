"""One piece of work on its way from the event loop to an HSM thread and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from holdfast.hsm.pkcs11.hsm_thread import HsmThread
    from holdfast.hsm.port import KeySession, Timing


class Job:
    """`deadline`, `enqueued`, `started`, `finished` in monotonic seconds, 0.0 for not yet.

    The loop owns `future`, `future_done`, `timing` and `expired`; the HSM thread that takes the job owns the
    rest.
    """

    __slots__ = (
        "deadline",
        "enqueued",
        "error",
        "expired",
        "finished",
        "future",
        "future_done",
        "result",
        "started",
        "thread",
        "timing",
        "work",
    )

    def __init__(
        self,
        work: Callable[[KeySession], Any],
        deadline: float,
        timing: Timing,
        future: asyncio.Future[Any],
        enqueued: float,
    ) -> None:
        self.work: Callable[[KeySession], Any] | None = work
        self.deadline = deadline
        self.timing = timing
        self.future = future
        self.enqueued = enqueued
        self.started = 0.0
        self.finished = 0.0
        self.expired = False
        self.future_done = False
        self.thread: HsmThread | None = None
        self.result: Any = None
        self.error: BaseException | None = None

    def forget(self) -> None:
        """Let go of plaintexts: the job itself stays in the list of deadlines for a while."""
        self.work = self.result = self.error = None
        del self.future
