"""One JSON line per request: the operator's record of who asked for what, and what became of it.

Values that came from outside stand in JSON strings, in which everything but printable ASCII is escaped: no
value can end a line, start another, or speak to a terminal.
"""

import re
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from holdfast.operations.event import Event
from holdfast.threads import LivingThread
from holdfast.xks.errors import ErrorName

FLUSH_INTERVAL = 0.01
"""Seconds for which lines gather before they are written together."""
CAPACITY = 20_000
"""Events that wait while the sink blocks; what comes on top is lost, and counted."""
_CLOSE_TIMEOUT = 2.0
_BATCH = 500


class Record(NamedTuple):
    """An event, when it ended (seconds since 1970) and the client's address."""

    ended: float
    event: Event
    client: str


class Sink(Protocol):
    """Where lines go (`holdfast.proxy.log_sink`)."""

    def write(self, lines: bytes) -> None:
        """Append whole lines. Raises OSError."""

    def reopen(self) -> None:
        """Open the file again, by its name. Raises OSError."""


class EventLog:
    """The lines of one worker, written by a thread of its own: a sink that blocks delays no request."""

    def __init__(
        self, sink: Sink, *, ckr_name: Callable[[int], str], worker: int, on_warning: Callable[[str], None]
    ) -> None:
        self._sink = sink
        self._ckr_name = ckr_name
        self._worker = worker
        self._records: deque[Record] = deque()
        self._wake = threading.Event()
        self._reopen = False
        self._closing = threading.Event()
        self.thread = LivingThread("event-log", self._run, on_failure=on_warning)
        self._overflowed = 0
        self._unwritten = 0

    @property
    def lost(self) -> int:
        """Lines that could not be written so far."""
        return self._overflowed + self._unwritten

    def start(self) -> None:
        """Begin to write."""
        self.thread.start()

    def append(self, record: Record) -> None:
        """Write it soon; never blocks. The event must not change any more."""
        records = self._records
        if len(records) >= CAPACITY:
            self._overflowed += 1
            return
        records.append(record)
        if len(records) == 1:
            self._wake.set()

    def reopen(self) -> None:
        """Go on in a new file of the same name, after what was rotated away has got its lines."""
        self._reopen = True
        self._wake.set()

    def close(self) -> None:
        """Write what waits; a sink that blocks is given up after two seconds."""
        self._closing.set()
        self._wake.set()
        self.thread.join(_CLOSE_TIMEOUT)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(FLUSH_INTERVAL)
            self._wake.clear()
            self._write_waiting()
            if self._reopen:
                self._reopen = False
                # A name that cannot be opened leaves the old file in use.
                _try(self._sink.reopen)
        self._write_waiting()

    def _write_waiting(self) -> None:
        records = self._records
        while records:
            batch = [records.popleft() for _ in range(min(_BATCH, len(records)))]
            try:
                self._sink.write(b"".join([self._line(record) for record in batch]))
            except OSError:
                self._unwritten += len(batch)

    def _line(self, record: Record) -> bytes:
        return ascii_only(_ENCODER.encode(_line(record, self._ckr_name, self._worker))) + b"\n"


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


_ENCODER = msgspec.json.Encoder()
_NOT_PRINTABLE = re.compile("[^ -~]")
_DENIALS = frozenset((ErrorName.AUTHENTICATION_FAILED, ErrorName.ACCESS_DENIED, ErrorName.INVALID_STATE))


def ascii_only(line: bytes) -> bytes:
    """The JSON with every character outside printable ASCII as escapes (RFC 8259, section 7)."""
    if line.isascii() and b"\x7f" not in line:
        return line
    return _NOT_PRINTABLE.sub(_escape, line.decode()).encode("ascii")


def decision(event: Event) -> str:
    """`allow`, `deny` (who asks may not, or not now) or `fail` (it could not be done)."""
    if event.outcome is None:
        return "allow"
    return "deny" if event.error in _DENIALS else "fail"


def _line(record: Record, ckr_name: Callable[[int], str], worker: int) -> _Line:
    event, timing = record.event, record.event.timing
    metadata = event.metadata
    line = _Line(
        datetime.fromtimestamp(record.ended, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
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


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= 0xFFFF:  # noqa: PLR2004 (the largest code point of one escape)
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def _try(action: Callable[[], None]) -> None:
    try:
        action()
    except OSError:
        return
