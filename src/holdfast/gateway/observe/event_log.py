"""One JSON line per request: the operator's record of who asked for what, and what became of it.

There are two streams. What was authenticated is the audit record: its lines wait until they can be written. What was
refused before authentication can be caused by anybody, without end: a few such lines a second are written, the rest
is counted, and neither takes the place of a line of the audit record.

Values that came from outside stand in JSON strings, in which everything but printable ASCII is escaped: no
value can end a line, start another, or speak to a terminal.
"""

import asyncio
import errno
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from holdfast.gateway.observe.audit_spool import AuditSpool
from holdfast.gateway.observe.log_sink import NotWritten
from holdfast.gateway.observe.outlet_feed import RETRY as OUTLET_RETRY
from holdfast.gateway.observe.outlet_feed import OutletFeed
from holdfast.protocols.xks.event import Event, RecordUnavailable
from holdfast.threads import LivingThread
from holdfast.xks.errors import ErrorName

FLUSH_INTERVAL = 0.01
"""Seconds for which lines gather before they are written together."""
CAPACITY = 20_000
"""Audit lines that wait while they cannot be written; what comes on top is lost, and counted."""
REFUSALS_PER_SECOND = 10
"""Lines of requests refused before authentication; more are counted only."""
REFUSALS_AT_ONCE = 100
"""Such lines after a quiet time."""
SUMMARY_INTERVAL = 1.0
"""Seconds between two lines that say how many refusals were left out."""
RETRY = 0.5
"""Seconds between two attempts to write while the sink takes nothing."""
STALLED = 1.0
"""Seconds after which a write that has not returned counts as a failure."""
LOSS_INTERVAL = 60.0
"""Seconds between two messages that say how many lines are lost."""
_CLOSE_TIMEOUT = 2.0
_BATCH = 500

Written = TypeVar("Written")


class Record(NamedTuple):
    """An event, when it ended (seconds since 1970) and the client's address."""

    ended: float
    event: Event
    client: str


class Sink(Protocol):
    """Where lines go (`holdfast.gateway.observe.log_sink`)."""

    def write(self, lines: bytes) -> None:
        """Append whole lines. Raises NotWritten with the number of those that it did append, or OSError."""

    def reopen(self) -> None:
        """Open the file again, by its name. Raises OSError."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A record that is to be written; `confirm` is called with whether it was, at the first attempt.

    `forgotten`: the request was answered otherwise, and the record must not be written. `spooled`: the audit log has
    its line, or keeps it. `offered`: so do the outlets.
    """

    record: Record
    confirm: Callable[[bool], None] | None = None
    forgotten: bool = False
    spooled: bool = False
    offered: bool = False


class EventLog:
    """The lines of one worker, written by a separate thread: a sink that blocks delays no request.

    `append` and `recorded` belong to the event loop. `required`: the answers that wait for their line wait for this
    log; `fail_closed`: they wait for the spool of the audit log. Then lines are written at once. `policy_digest`
    stands in each line of the audit record.
    """

    def __init__(  # noqa: PLR0913 (independent settings)
        self,
        sink: Sink,
        *,
        ckr_name: Callable[[int], str],
        worker: int,
        on_warning: Callable[[str], None],
        required: bool = False,
        spool: AuditSpool | None = None,
        outlets: OutletFeed | None = None,
        fail_closed: bool = False,
        policy_digest: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink = sink
        self._spool = spool
        self._outlets = outlets
        self._required = required
        self._fail_closed = fail_closed
        self._ckr_name = ckr_name
        self._worker = worker
        self._on_warning = on_warning
        self._flush_interval = 0.0 if required or fail_closed else FLUSH_INTERVAL
        self._policy_digest = policy_digest
        self._monotonic = monotonic
        self._audit: deque[_Waiting] = deque()
        self._refusals: deque[_Waiting] = deque()
        self._tokens = float(REFUSALS_AT_ONCE)
        self._tokens_at = monotonic()
        self._summarized_at = monotonic()
        self._wake = threading.Event()
        self._reopen = False
        self._closing = threading.Event()
        self.thread = LivingThread("event-log", self._run, on_failure=on_warning)
        self.lost = 0
        """Audit lines that were not written and never will be."""
        self._dropped = 0
        self._dropped_told = 0
        self.left_out = 0
        """Refusals before authentication that were counted and not written."""
        self._summarized = 0
        self._failure: str | None = None
        self._writing_since: float | None = None
        self._loss_reported = 0
        self._loss_reported_at = float("-inf")

    def start(self) -> None:
        """Begin to write."""
        self.thread.start()

    def trouble(self) -> str | None:
        """Why lines cannot be written at present; None if they can."""
        failure = self._stalled() or self._failure
        return None if failure is None else f"the event log cannot be written: {failure}"

    def _stalled(self) -> str | None:
        since = self._writing_since
        if since is None or self._monotonic() - since <= STALLED:
            return None
        return f"a write has not returned for {self._monotonic() - since:.0f} s; is its reader running?"

    def audit_trouble(self) -> str | None:
        """Why the audit log gets no lines at present; None if it does, or there is none."""
        return None if self._spool is None else self._spool.trouble()

    @property
    def outlet_lines_lost(self) -> int:
        """Lines that no outlet will get."""
        return 0 if self._outlets is None else self._outlets.lost

    def obstacle(self) -> str | None:
        """Why no operation on a key may be answered at present; None if it may."""
        if self._fail_closed and (trouble := self.audit_trouble()):
            return trouble
        # A write that does not return holds up the audit log too: one thread writes both.
        return self.trouble() if self._required or (self._fail_closed and self._stalled()) else None

    def require(self) -> None:
        """Raises RecordUnavailable while an answer that needs its record would not get one."""
        obstacle = self.obstacle()
        if obstacle is not None:
            raise RecordUnavailable(obstacle)

    def append(self, record: Record) -> None:
        """Write it soon; never blocks. The event must not change any more."""
        if record.event.access_key_id is None:
            self._append_refusal(record)
        else:
            self._append_audit(_Waiting(record))

    async def recorded(self, record: Record, *, within: float) -> bool:
        """Write the record, and say whether it is written. If it is not, within so many seconds, it is forgotten.

        Only one that is being written when the time is over may still get its line.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[bool] = loop.create_future()

        def settle(done: bool) -> None:  # noqa: FBT001 (a future's result)
            if not written.done():
                written.set_result(done)

        def confirm(done: bool) -> None:  # noqa: FBT001 (as above)
            with suppress(RuntimeError):  # the event loop has ended, and with it the request
                loop.call_soon_threadsafe(settle, done)

        waiting = _Waiting(record, confirm)
        self._append_audit(waiting)
        try:
            return await asyncio.wait_for(written, within)
        except TimeoutError:
            waiting.forgotten = True
            return False

    def reopen(self) -> None:
        """Go on in a new file of the same name, after what was rotated away has got its lines."""
        self._reopen = True
        self._wake.set()

    def close(self) -> None:
        """Write what waits; a sink that blocks is given up after two seconds."""
        self._closing.set()
        self._wake.set()
        self.thread.join(_CLOSE_TIMEOUT)
        self.lost += len(self._audit)
        self._report_loss()

    def _append_audit(self, waiting: _Waiting) -> None:
        audit = self._audit
        if len(audit) >= CAPACITY:
            self.lost += 1
            self._dropped += 1
            if waiting.confirm is not None:
                waiting.confirm(False)
            return
        audit.append(waiting)
        if len(audit) == 1:
            self._wake.set()

    def _append_refusal(self, record: Record) -> None:
        now = self._monotonic()
        self._tokens = min(REFUSALS_AT_ONCE, self._tokens + (now - self._tokens_at) * REFUSALS_PER_SECOND)
        self._tokens_at = now
        if self._tokens < 1 or len(self._refusals) >= REFUSALS_AT_ONCE:
            self.left_out += 1
            if self.left_out == self._summarized + 1:
                self._wake.set()
            return
        self._tokens -= 1
        self._refusals.append(_Waiting(record))
        if len(self._refusals) == 1:
            self._wake.set()

    # ---- the thread's side

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._idle())
            self._closing.wait(RETRY if self._failure is not None else self._flush_interval)
            self._wake.clear()
            self._write_waiting()
            if self._monotonic() - self._loss_reported_at > LOSS_INTERVAL:
                self._report_loss()
            if self._reopen:
                self._reopen = False
                try:
                    self._sink.reopen()
                except OSError as error:
                    self._on_warning(f"the event log cannot be opened again, and goes on in the old file: {error}")
        self._write_waiting()
        if self._spool is not None:
            self._spool.skip(sum(not (waiting.spooled or waiting.forgotten) for waiting in self._audit))
            self._spool.close()
        if self._outlets is not None and (left := self._outlets.close()):
            self._on_warning(f"{left} lines of the event log were not handed to the outlets: their process is busy")

    def _idle(self) -> float | None:
        """Seconds for which nothing is to be done unless a line comes; None: for ever."""
        if self._outlets is not None and self._outlets.has_waiting:
            return OUTLET_RETRY
        troubled = self._failure is not None or self.audit_trouble() is not None
        if troubled or self.left_out > self._summarized:
            return RETRY
        return None if self._spool is None else self._spool.due_in()

    def _write_waiting(self) -> None:
        dropped = self._dropped - self._dropped_told
        self._dropped_told += dropped
        if self._spool is not None:
            self._spool.skip(dropped)
            self._spool.write([])
        if self._outlets is not None:
            self._outlets.skip(dropped)
            self._outlets.flush()
        self._summarize()
        while self._audit or self._refusals:
            batch = _take(self._audit, _BATCH)
            if len(batch) < _BATCH and self._refusals:
                batch = sorted(batch + _take(self._refusals, _BATCH), key=lambda waiting: waiting.record.ended)
            if batch and not self._write(batch):
                return

    def _write(self, batch: list[_Waiting]) -> bool:
        """Whether the next batch may be tried. What was not written waits again, unless its answer was withheld."""
        lines = [self._line(waiting.record) for waiting in batch]
        if self._spool is not None:
            batch, lines = self._spooled(self._spool, batch, lines)
        gone = False
        try:
            self._hand_over(b"".join(lines))
        except OSError as error:
            written = error.lines if isinstance(error, NotWritten) else 0
            gone = error.errno == errno.EPIPE
            self._fail(error.strerror or str(error))
        else:
            written = len(batch)
            self._recover()
        for index, waiting in enumerate(batch):
            if waiting.confirm is not None:
                waiting.confirm(index < written or not self._required)
        left = [waiting for waiting in batch[written:] if waiting.confirm is None or not self._required]
        if self._outlets is not None:
            self._offer(self._outlets, {id(waiting) for waiting in [*batch[:written], *left]}, batch, lines)
        if gone:
            # The reader of a pipe does not come back: these lines will never be written.
            self.lost += sum(_is_audit(waiting) for waiting in left)
            return True
        self._audit.extendleft(waiting for waiting in reversed(left) if _is_audit(waiting))
        self._refusals.extendleft(waiting for waiting in reversed(left) if not _is_audit(waiting))
        return written == len(batch)

    def _offer(self, outlets: OutletFeed, kept: set[int], batch: list[_Waiting], lines: list[bytes]) -> None:
        """Send the lines to the outlets, each once; none of those whose answers were withheld."""
        fresh = [
            (waiting, line)
            for waiting, line in zip(batch, lines, strict=True)
            if id(waiting) in kept and not waiting.offered
        ]
        for waiting, _ in fresh:
            waiting.offered = True
        outlets.offer([line for _, line in fresh])
        outlets.flush()

    def _spooled(
        self, spool: AuditSpool, batch: list[_Waiting], lines: list[bytes]
    ) -> tuple[list[_Waiting], list[bytes]]:
        """Copy the lines to the audit log. What is left for this log: those whose answers are not withheld."""
        fresh = [
            (waiting, line)
            for waiting, line in zip(batch, lines, strict=True)
            if _is_audit(waiting) and not waiting.spooled
        ]
        done = self._timed(spool.write, [line for _, line in fresh])
        for waiting, _ in fresh:
            waiting.spooled = True
        if done:
            return batch, lines
        withheld = {id(waiting) for waiting, _ in fresh if self._fail_closed and waiting.confirm is not None}
        spool.keep([line for waiting, line in fresh if id(waiting) not in withheld])
        for waiting, _ in fresh:
            if id(waiting) in withheld and waiting.confirm is not None:
                waiting.confirm(False)
        left = [(waiting, line) for waiting, line in zip(batch, lines, strict=True) if id(waiting) not in withheld]
        return [waiting for waiting, _ in left], [line for _, line in left]

    def _hand_over(self, lines: bytes) -> None:
        self._timed(self._sink.write, lines)

    def _timed(self, write: Callable[[Any], Written], lines: Any) -> Written:
        self._writing_since = self._monotonic()
        try:
            return write(lines)
        finally:
            self._writing_since = None

    def _line(self, record: Record) -> bytes:
        try:
            line = _line(record, self._ckr_name, self._worker)
            if record.event.access_key_id is not None:
                line.policy_digest = self._policy_digest
            return ascii_only(_ENCODER.encode(line)) + b"\n"
        except Exception as error:  # noqa: BLE001 (one record that cannot be put into words must not stop the others)
            self._on_warning(f"an event cannot be written as a line: {type(error).__name__}: {error}")
            return (
                _ENCODER.encode(_summary(record.ended, self._worker, "an event could not be written as a line"))
                + b"\n"
            )

    def _summarize(self) -> None:
        """A line that says how many refusals were left out, at most once a second."""
        now = self._monotonic()
        left_out = self.left_out - self._summarized
        if not left_out or (now - self._summarized_at < SUMMARY_INTERVAL and not self._closing.is_set()):
            return
        line = _summary(
            datetime.now(UTC).timestamp(), self._worker, f"{left_out} refusals before authentication were left out"
        )
        line.left_out = left_out
        try:
            self._hand_over(_ENCODER.encode(line) + b"\n")
        except OSError as error:
            self._fail(error.strerror or str(error))
        else:
            self._summarized += left_out
            self._summarized_at = now
            self._recover()
            if self._outlets is not None:
                self._outlets.offer([_ENCODER.encode(line) + b"\n"])

    def _fail(self, reason: str) -> None:
        if self._failure is None:
            self._on_warning(f"the event log cannot be written: {reason}; up to {CAPACITY} lines wait until it can")
        self._failure = reason

    def _recover(self) -> None:
        if self._failure is not None:
            self._failure = None
            self._on_warning("the event log can be written again")

    def _report_loss(self) -> None:
        lost = self.lost - self._loss_reported
        if lost:
            self._loss_reported += lost
            self._loss_reported_at = self._monotonic()
            self._on_warning(f"{lost} lines of the event log are lost")


def _take(waiting: deque[_Waiting], most: int) -> list[_Waiting]:
    taken = (waiting.popleft() for _ in range(min(most, len(waiting))))
    return [each for each in taken if not each.forgotten]


def _is_audit(waiting: _Waiting) -> bool:
    return waiting.record.event.access_key_id is not None


def _summary(ended: float, worker: int, detail: str) -> "_Line":
    """A line that is of no single request."""
    nothing = _Milliseconds(0.0, 0.0, 0.0, 0.0)
    return _Line(_timestamp(ended), "deny", 401, nothing, 0, 0, "", worker, detail=detail)


class _Milliseconds(msgspec.Struct):
    authentication: float
    queue: float
    hsm: float
    total: float


class _Line(msgspec.Struct, rename="camel", omit_defaults=True):
    timestamp: str
    decision: str
    status: int
    milliseconds: _Milliseconds
    bytes_in: int
    bytes_out: int
    client: str
    worker: int
    operation: str | None = None
    kms_request_id: str | None = None
    keystore: str | None = None
    external_key_id: str | None = None
    generation: int | None = None
    access_key_id: str | None = None
    aws_principal_arn: str | None = None
    kms_key_arn: str | None = None
    kms_operation: str | None = None
    kms_via_service: str | None = None
    aws_source_vpc: str | None = None
    aws_source_vpce: str | None = None
    error_name: str | None = None
    detail: str | None = None
    policies: tuple[str, ...] = ()
    function: str | None = None
    ckr: str | None = None
    policy_digest: str | None = None
    left_out: int | None = None


_ENCODER = msgspec.json.Encoder()
_NOT_PRINTABLE = re.compile("[^ -~]")
_DENIALS = frozenset((ErrorName.AUTHENTICATION_FAILED, ErrorName.ACCESS_DENIED, ErrorName.INVALID_STATE))


def ascii_only(line: bytes) -> bytes:
    """The JSON with every character outside printable ASCII as escapes (RFC 8259, section 7)."""
    if line.isascii() and b"\x7f" not in line:
        return line
    return _NOT_PRINTABLE.sub(_escape, line.decode()).encode("ascii")


def decision(event: Event) -> str:
    """`allow`, `deny` (the caller may not do it, or not now) or `fail` (any other error)."""
    if event.outcome is None:
        return "allow"
    return "deny" if event.error in _DENIALS else "fail"


def _line(record: Record, ckr_name: Callable[[int], str], worker: int) -> _Line:
    event, timing = record.event, record.event.timing
    metadata = event.metadata
    line = _Line(
        _timestamp(record.ended),
        decision(event),
        event.status,
        _Milliseconds(_ms(event.authentication), _ms(timing.queue), _ms(timing.hsm), _ms(event.total)),
        event.bytes_in,
        event.bytes_out,
        record.client,
        worker,
        event.operation,
        None if metadata is None else metadata.kms_request_id,
        event.keystore,
        event.external_key_id,
        event.generation,
        event.access_key_id,
    )
    if metadata is not None:
        line.aws_principal_arn = metadata.aws_principal_arn
        line.kms_key_arn = metadata.kms_key_arn
        line.kms_operation = metadata.kms_operation
        line.kms_via_service = metadata.kms_via_service
        line.aws_source_vpc = metadata.aws_source_vpc
        line.aws_source_vpce = metadata.aws_source_vpce
    line.policies = event.policies
    if event.outcome is not None:
        line.error_name, line.detail, line.function = event.outcome, event.detail, event.function
        line.ckr = None if event.ckr is None else ckr_name(event.ckr)
    return line


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= 0xFFFF:  # noqa: PLR2004 (the largest code point of one escape)
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
