"""Messages between the supervisor and its workers, pickled over a socket pair that no other process holds."""

from dataclasses import dataclass, field
from enum import IntEnum

from holdfast.gateway.observe.tally import Row
from holdfast.hsm.port import KeyLocator
from holdfast.store.gauge_values import CatalogGauges

StoppedKeys = dict[KeyLocator, str]
"""Keys that do not encrypt any more, or are not used at all; and why."""


class ExitReason(IntEnum):
    """Why a worker could not start: the exit code of `holdfast serve` (`holdfast.cli.exit_codes` has the words)."""

    FAILED = 1
    CONFIGURATION = 4
    HSM = 7
    CATALOG = 8
    LOGIN_REFUSED = 12
    """Never to be tried again by itself: a token locks after a few refused logins."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker answers requests."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker could not start, for a reason that a person can act on."""

    exit_reason: ExitReason
    reason: str


@dataclass(frozen=True, slots=True)
class HsmReport:
    """One HSM as one worker sees it. `gauges` are the backend's own; `stopped` keys had an unsafe IV.

    `recorded` are the stopped keys that the catalog holds, `untrusted` those that did not prove to be the registered
    ones or may leave the HSM. `alarms` are sentences for the operator.
    """

    name: str
    status: str
    gauges: dict[str, float]
    stopped: StoppedKeys = field(default_factory=dict)
    recorded: StoppedKeys = field(default_factory=dict)
    untrusted: StoppedKeys = field(default_factory=dict)
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyCount:
    """Encryptions reserved under a key generation."""

    keystore: str
    external_key_id: str
    generation: int
    encryptions: int


@dataclass(frozen=True, slots=True)
class ThreadReport:
    """A thread that must not end: how often it failed and was restarted, and whether it runs well now."""

    name: str
    failures: int
    well: bool


@dataclass(frozen=True, slots=True)
class Report:
    """A worker's counters since its start, and its gauges. Also the sign that its event loop turns.

    `connections` counts those of every port, `authenticated`, `handshakes` and `places` those of the main port;
    `counts` is by metric and label; `encryptions` None: those of the report before. `stranded`: only another process
    may reach one of its HSMs again.
    """

    rows: list[Row]
    connections: int
    in_flight: int
    event_lines_lost: int
    catalog_age: float
    hsms: list[HsmReport]
    encryptions: list[KeyCount] | None = field(default_factory=list)
    credentials_used: dict[str, float] = field(default_factory=dict)
    stranded: bool = False
    threads: list[ThreadReport] = field(default_factory=list)
    messages_lost: int = 0
    usage_lost: int = 0
    catalog: CatalogGauges | None = None
    refusals_left_out: int = 0
    credentials_unreadable: dict[str, int] = field(default_factory=dict)
    event_log_fails: bool = False
    locally_stopped: bool = False
    audit_spool_fails: bool = False
    outlet_lines_lost: int = 0
    authenticated: int = 0
    handshakes: int = 0
    places: int = 0
    counts: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SealerReport:
    """The audit log as the process that writes it sees it; times in seconds since 1970.

    `entries` on disk; `signed` of them, by a checkpoint made at `signed_at`, the last one that a witness cosigned at
    `cosigned_at` (None: since the process began, none). `waiting_since`: since when something has waited for a
    checkpoint. `trouble`: why it cannot be written or signed. `events`, `lost` and `cut` are what this process has
    logged: events, those that were lost, and streams that ended with an unknown number of them.
    """

    at: float
    entries: int = 0
    signed: int = 0
    signed_at: float | None = None
    cosigned_at: float | None = None
    waiting_since: float | None = None
    events: int = 0
    lost: int = 0
    cut: int = 0
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class OutletReport:
    """One outlet since its process began: messages that were sent, are lost, and wait. `trouble`: why they wait."""

    name: str
    connected: bool
    sent: int
    lost: int
    waiting: int
    trouble: str | None


@dataclass(frozen=True, slots=True)
class OutletsReport:
    """All outlets. `at`: seconds since 1970. `trouble`: why changes cannot be read."""

    at: float
    outlets: tuple[OutletReport, ...] = ()
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Refresh:
    """Read the certificate files again, reopen the event log, look for new keys in the HSMs."""


@dataclass(frozen=True, slots=True)
class RefreshTls:
    """Read the certificate files again."""


@dataclass(frozen=True, slots=True)
class StopKeys:
    """By HSM: keys that another worker has stopped. What one worker may not encrypt with, none may."""

    stopped: dict[str, StoppedKeys]


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept no more, answer what is in flight, exit."""


FromWorker = Ready | Failed | Report
ToWorker = Refresh | RefreshTls | StopKeys | Drain
