"""Sends what the workers record, and what changes in the catalog, to every outlet, until the supervisor ends it.

A process of its own: a receiver that is slow, hostile or makes a library crash costs neither a request, nor the audit
log, nor what replaces dead workers. Its one thread takes lines from the workers and never waits for a receiver; each
outlet has a buffer and a thread, and the changes have another, since a database may hang.
"""

import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import wait
from socket import MSG_DONTWAIT
from typing import Any

import msgspec

from holdfast.gateway.observe.messages import OutletsReport
from holdfast.gateway.observe.notify import say
from holdfast.gateway.outlets.changes import Changes
from holdfast.gateway.outlets.message import Message
from holdfast.gateway.outlets.outlet import Buffered
from holdfast.gateway.outlets.start import OutletsStart
from holdfast.gateway.outlets.transports import transport_of
from holdfast.store.store import Catalog

_TURN = 0.5
"""Seconds between two reports to the supervisor."""
LAST_SENDING = 1.0
"""Seconds in which receivers that are there take what waits when the service stops."""
_MOST = 65_536
_AT_ONCE = 64
"""Messages of workers that are taken between two looks at the clock."""
_UNSENT = "lines of a worker's event log, since the process of the outlets was busy"


def run(start: OutletsStart) -> None:
    """The process, from its first line to its exit."""
    # The supervisor decides for all; it ends this process by closing the connection, after the workers have gone.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(BrokenPipeError, ConnectionResetError):
        _Outlets(start).run()
    # A thread that waits for a receiver would keep the interpreter from ending.
    os._exit(0)


class _Outlets:
    def __init__(self, start: OutletsStart) -> None:
        configuration = start.configuration
        self._control = start.control
        self._events = start.events
        self._node = configuration.node_name
        self._outlets = [
            Buffered(name, settings, transport_of(settings), node=self._node, say=say)
            for name, settings in configuration.outlets.items()
        ]
        catalog = configuration.catalog
        self._changes = Changes(
            partial(
                Catalog.open,
                catalog.url,
                catalog.secrets_directory,
                reference_prefix=catalog.reference_prefix,
                now=_now,
            ),
            [one for one in self._outlets if one.settings.changes],
            catalog.state_file.with_suffix(".outlets"),
            node=self._node,
            say=say,
        )

    def run(self) -> None:
        """Until the supervisor says that it is over, or has gone."""
        for thread in (*(outlet.thread for outlet in self._outlets), self._changes.thread):
            thread.start()
        report_at = 0.0
        while True:
            ready = wait([self._control, self._events], max(0.0, report_at - time.monotonic()))
            self._take()
            if time.monotonic() >= report_at:
                self._report()
                report_at = time.monotonic() + _TURN
            if self._control in ready:
                break
        self._end()

    def _take(self) -> bool:
        """What workers have sent so far, up to a bound: the clock must be looked at. Whether there may be more."""
        for _ in range(_AT_ONCE):
            try:
                lines = self._events.recv(_MOST, MSG_DONTWAIT)
            except OSError:  # BlockingIOError: there is nothing more
                return False
            for line in lines.splitlines():
                self._put(line)
        return True

    def _put(self, line: bytes) -> None:
        try:
            fields: dict[str, Any] = msgspec.json.decode(line)
            message = (
                Message.of_event(fields, node=self._node)
                if "decision" in fields
                else Message.of_loss(fields["lost"], _UNSENT, time=_now(), node=self._node)
            )
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            say("error", f"a worker's line is not as it should be, and no outlet gets it: {error}")
            return
        for outlet in self._outlets:
            outlet.put(message)

    def _report(self) -> None:
        reports = tuple(outlet.report() for outlet in self._outlets)
        self._control.send(OutletsReport(_now().timestamp(), reports, self._changes.trouble))

    def _end(self) -> None:
        """The workers have gone. Send what they have left, to receivers that take it soon."""
        while self._take():
            pass
        self._changes.end()
        for outlet in self._outlets:
            outlet.end()
        until = time.monotonic() + LAST_SENDING
        for outlet in self._outlets:
            outlet.thread.join(max(0.0, until - time.monotonic()))
        with suppress(OSError):
            self._changes.keep()
        for report in (outlet.report() for outlet in self._outlets):
            if report.waiting:
                say(
                    "warning",
                    f"the outlet {report.name} ends with {report.waiting} messages that were not sent; changes among"
                    " them are sent after the next start",
                )
        self._report()


def _now() -> datetime:
    return datetime.now(UTC)
