"""What the operations ask of an external key manager."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

from holdfast.xks.aad import AadFraming
from holdfast.xks.types import HealthStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeyLocator:
    """How a key is found, and how it proves itself.

    `label` is its CKA_LABEL, `id` its CKA_ID (None: not looked at). `canary` (IV, ciphertext, tag) was sealed under
    it at registration; None: there is none yet, so the HSM makes one.
    """

    label: str
    id: bytes | None = None
    canary: bytes | None = field(default=None, compare=False, repr=False)


class Sealed(NamedTuple):
    """What AES-GCM returned. IV: 12 or 16 bytes; tag: 16 bytes; ciphertext: as long as the plaintext."""

    initialization_vector: bytes
    ciphertext: bytes
    authentication_tag: bytes


@dataclass(frozen=True, slots=True)
class KeyAttributes:
    """A key as the token describes it. `key_spec` is the XKS word (`AES_256`); usages are XKS words too.

    `attributes` holds every readable CKA_ boolean by name, for `holdfast doctor`; unreadable ones are absent.
    """

    key_spec: str
    key_usage: tuple[str, ...]
    attributes: dict[str, bool] = field(default_factory=dict)


class CanaryKeeper(Protocol):
    """Keeps the canaries of keys that were registered without one. Called on HSM threads; never blocks."""

    def may_make(self, key: KeyLocator) -> bool | None:
        """Whether to make the canary now: its encryption is counted. True once for each key; None: not known yet."""

    def made(self, key: KeyLocator, canary: bytes) -> None:
        """Keep it."""

    def failed(self, key: KeyLocator) -> None:
        """None was made: another one may be, after its encryption was counted too."""


class KeySession(Protocol):
    """A logged-in session with an HSM, used by one thread at a time. Every method blocks and raises HsmFault."""

    def encrypt(self, key: KeyLocator, plaintext: bytes, aad: bytes) -> Sealed:
        """AES-GCM with a fresh IV: 12 bytes, or 16 where the module makes the IV (Luna)."""

    def decrypt(self, key: KeyLocator, sealed: Sealed, aad: bytes) -> bytes:
        """The plaintext, or CiphertextRejected."""

    def describe(self, key: KeyLocator) -> KeyAttributes:
        """The key's type, length and permissions; cached per module epoch."""


@dataclass(slots=True)
class Timing:
    """Filled in by `Hsm.run`, also when it raises. Seconds."""

    queue: float = 0.0
    hsm: float = 0.0


@dataclass(frozen=True, slots=True)
class HsmHealth:
    """The latest finding of the background probe. `checked_at` is monotonic seconds, None before the first."""

    id: str
    vendor: str
    model: str
    status: HealthStatus
    reason: str
    checked_at: float | None


@dataclass(frozen=True, slots=True)
class HsmGauges:
    """What the metrics show of one HSM at this moment.

    `sessions` serve or could serve now; `quarantined` ones wait for a C_ call that is past its deadline.
    `encryptions` and `decryptions` count those that succeeded since `start`. `module_epoch` grows with each
    C_Initialize.
    """

    sessions: int
    sessions_in_use: int
    quarantined: int
    queue_length: int
    breaker_open: bool
    module_epoch: int
    encryptions: int
    decryptions: int


class Hsm(Protocol):
    """One HSM (or one load-shared set behind one token): bounded sessions behind one bounded queue."""

    @property
    def aad_framing(self) -> AadFraming:
        """How Encrypt frames the AAD for this HSM; a ciphertext remembers its own."""

    def start(self) -> None:
        """Load the module, log in, probe the IV mode, open the sessions. Raises HsmFault when unfit to serve."""

    async def run(self, work: Callable[[KeySession], T], *, deadline: float, timing: Timing) -> T:
        """The result of `work`, called on an HSM thread with its own session.

        `deadline` is absolute, in seconds of `time.monotonic()`. Raises what `work` raises, HsmBusy without
        waiting when the queue cannot be served by then, HsmTimeout when the module has not answered by then,
        HsmUnavailable at once while the circuit breaker is open.
        """

    def health(self) -> HsmHealth:
        """The latest probe; never blocks."""

    def gauges(self) -> HsmGauges:
        """The state for the metrics; never blocks."""

    def reload_keys(self) -> None:
        """Ask for another C_Initialize, as soon as no call is inside the module; never blocks.

        A library may show only the keys it found at C_Initialize (nShield, `CKNFAST_ASSUME_SINGLE_PROCESS=1`).
        """

    def stop(self) -> None:
        """Refuse new work, let the running calls end (bounded), close the sessions, finalize the module."""
