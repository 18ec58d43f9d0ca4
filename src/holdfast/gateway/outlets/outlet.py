"""One outlet: a bounded buffer, and a thread that empties it into a receiver.

Whoever gives it a message never waits. While the receiver is away, slow or full the buffer fills; then events are
lost, and a message in their place says how many. Changes are not lost: they stay in the catalog until they are sent.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from holdfast.config.outlets import Events, Outlet
from holdfast.gateway.observe.messages import OutletReport
from holdfast.gateway.outlets.message import Kind, Message
from holdfast.gateway.outlets.transports import Refused, Transport
from holdfast.threads import LivingThread

BATCH = 200
"""Messages that are handed over together."""
FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.5, 30.0
"""Seconds between two attempts, twice as many after each failure."""
SETTLED = 2.0
"""Seconds for which a connection must stand after a change was sent, so that it counts as sent."""
RESERVE = 1_000
"""Messages beyond the buffer that are left to changes: a flood of events never takes their place."""
_LOOK = 5.0
"""Seconds between two looks whether a silent connection is still there."""
_FULL = "the outlet's buffer was full"


@dataclass(frozen=True, slots=True)
class Mark:
    """The place of a change in the catalog's table of changes."""

    number: int
    id: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: Message
    mark: Mark | None = None


class Buffered:
    """An outlet. `put` and `put_change` may be called by any thread."""

    def __init__(
        self,
        name: str,
        settings: Outlet,
        transport: Transport,
        *,
        node: str,
        say: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self._transport = transport
        self._node = node
        self._say = say
        self._waiting: deque[_Waiting] = deque()
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._ending = threading.Event()
        self._gap: tuple[int, str] = (0, _FULL)
        self._failures = 0
        self._trouble: str | None = None
        self._connected = False
        self._sent = 0
        self._lost = 0
        self._unsettled: list[tuple[float, _Waiting]] = []
        self.marked: Mark | None = None
        """The last change that was sent, over a connection that stood for a while afterwards."""
        self.thread = LivingThread(f"outlet-{name}", self._run, on_failure=lambda text: say("error", text))

    def start(self) -> None:
        """Connect, and send. Raises OSError."""
        self.thread.start()

    def put(self, message: Message) -> None:
        """Send an event, or word of a loss, if this outlet wants it."""
        wanted = self.settings.events
        if wanted is Events.NONE or (
            wanted is Events.REFUSED and message.kind is Kind.REQUEST and message.fields["decision"] == "allow"
        ):
            return
        with self._lock:
            if len(self._waiting) >= self.settings.buffer:
                self._lose(1, _FULL)
                return
            self._tell_gap()
            self._waiting.append(_Waiting(message))
        self._news.set()

    def put_change(self, message: Message, mark: Mark) -> bool:
        """Send a change; False: there is no room for it now."""
        with self._lock:
            if len(self._waiting) >= self.settings.buffer + RESERVE:
                return False
            self._tell_gap()
            self._waiting.append(_Waiting(message, mark))
        self._news.set()
        return True

    def report(self) -> OutletReport:
        """What became of the messages so far."""
        with self._lock:
            return OutletReport(
                name=self.name,
                connected=self._connected,
                sent=self._sent,
                lost=self._lost,
                waiting=len(self._waiting),
                trouble=self._trouble,
            )

    def end(self) -> None:
        """Send what waits, if the receiver takes it, and end."""
        self._ending.set()
        self._news.set()

    def _lose(self, count: int, reason: str) -> None:
        self._lost += count
        self._gap = (self._gap[0] + count, reason)

    def _tell_gap(self) -> None:
        count, reason = self._gap
        if count:
            lost = Message.of_loss(count, reason, time=datetime.now(UTC), node=self._node)
            self._waiting.append(_Waiting(lost))
            self._gap = (0, _FULL)

    # ---- the thread's side

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                if self._attempt():
                    self._wait()
                else:
                    self._ending.wait(min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2.0**self._failures))
                    self._failures = min(self._failures + 1, 16)
            # Once more, where the receiver was there: a stop waits for nobody who is not.
            while self._connected and self._batch() and self._attempt():
                pass
            if self._connected and self._attempt():
                self._settle(patience=0.0)
        finally:
            self._disconnect()

    def _wait(self) -> None:
        with self._lock:
            self._tell_gap()
            if self._waiting:
                return
            self._news.clear()
        self._news.wait(SETTLED if self._unsettled else _LOOK)

    def _attempt(self) -> bool:
        """Connect, or send a batch, or look whether the connection is still there; whether that was possible."""
        batch = self._batch()
        try:
            if not self._connected:
                self._transport.open()
                self._connected = True
            if batch:
                self._handed_over(self._transport.send([one.message for one in batch], first=self._sent))
            else:
                self._transport.check()
        except Refused as refused:
            self._drop(len(batch), str(refused))
            return False
        except (OSError, UnicodeError, ImportError) as error:  # UnicodeError: a host's name that cannot be one
            self._disconnect()
            self._fail(str(error))
            return False
        except Exception as error:  # noqa: BLE001 (messages that cannot be put into words must not stop the others)
            self._drop(len(batch), f"{type(error).__name__}: {error}")
            return False
        self._settle()
        self._recover()
        return True

    def _batch(self) -> list[_Waiting]:
        with self._lock:
            return list(islice(self._waiting, BATCH))

    def _handed_over(self, count: int) -> None:
        with self._lock:
            taken = [self._waiting.popleft() for _ in range(count)]
            self._sent += count
        self._unsettled += [(time.monotonic(), one) for one in taken if one.mark is not None]

    def _settle(self, patience: float = SETTLED) -> None:
        """Changes that went over a connection which still stands have arrived, as far as anybody can know."""
        before = time.monotonic() - patience
        while self._unsettled and self._unsettled[0][0] <= before:
            self.marked = self._unsettled.pop(0)[1].mark

    def _drop(self, count: int, reason: str) -> None:
        """The receiver has seen them and will not have them. Word of an earlier loss is given again, and no loss."""
        with self._lock:
            dropped = [self._waiting.popleft().message for _ in range(count)]
            told = [message.fields["lost"] for message in dropped if message.kind is Kind.LOST]
            self._lose(count - len(told), reason)
            self._gap = (self._gap[0] + sum(told), reason)
        if count > len(told):
            self._say("warning", f"the outlet {self.name} loses {count - len(told)} messages: {reason}")

    def _disconnect(self) -> None:
        """Changes that may not have arrived are sent again: a receiver knows them by their ids."""
        with self._lock:
            self._waiting.extendleft(one for _, one in reversed(self._unsettled))
        self._unsettled.clear()
        self._connected = False
        self._transport.close()

    def _fail(self, why: str) -> None:
        if self._trouble is None:
            self._say(
                "warning",
                f"the outlet {self.name} does not reach {self.settings.to}: {why}; up to {self.settings.buffer}"
                " messages wait until it does",
            )
        self._trouble = why

    def _recover(self) -> None:
        self._failures = 0
        if self._trouble is not None:
            self._trouble = None
            self._say("notice", f"the outlet {self.name} reaches {self.settings.to} again")
