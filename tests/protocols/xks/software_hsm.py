"""An external key manager in memory: real AES-GCM, and faults that a test can script."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.hsm.faults import CiphertextRejected, KeyNotFound, KeyUsageRefused
from holdfast.hsm.port import HsmGauges, HsmHealth, KeyAttributes, KeyLocator, KeySession, Sealed, Timing
from holdfast.xks.aad import AadFraming
from holdfast.xks.types import HealthStatus

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_TAG = 16


@dataclass(frozen=True)
class SoftwareKey:
    """Key bytes, and what the key may do, in XKS words."""

    value: bytes
    usage: tuple[str, ...] = ("ENCRYPT", "DECRYPT")


@dataclass
class SoftwareHsm:
    """Implements `Hsm` and, as its own session, `KeySession`.

    `calls` is what was asked, in order. `fault` is raised by the next `run`; `corrupt` flips a bit of each
    ciphertext between Encrypt and whatever comes after it; `lie` makes Decrypt return another plaintext.
    """

    keys: dict[str, SoftwareKey]
    aad_framing: AadFraming = AadFraming.SPEC
    fault: BaseException | None = None
    corrupt: bool = False
    lie: bool = False
    status: HealthStatus = HealthStatus.ACTIVE
    checked_at: float | None = 0.0
    calls: list[str] = field(default_factory=list)

    # ---- KeySession

    def encrypt(self, key: KeyLocator, plaintext: bytes, aad: bytes) -> Sealed:
        """AES-GCM under a random IV."""
        self.calls.append("encrypt")
        iv = secrets.token_bytes(12)
        output = AESGCM(self._usable(key, "ENCRYPT").value).encrypt(iv, plaintext, aad)
        ciphertext = output[:-_TAG]
        if self.corrupt:
            ciphertext = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
        return Sealed(iv, ciphertext, output[-_TAG:])

    def decrypt(self, key: KeyLocator, sealed: Sealed, aad: bytes) -> bytes:
        """The plaintext, or CiphertextRejected."""
        self.calls.append("decrypt")
        value = self._usable(key, "DECRYPT").value
        try:
            data = sealed.ciphertext + sealed.authentication_tag
            plaintext = AESGCM(value).decrypt(sealed.initialization_vector, data, aad)
        except InvalidTag:
            raise CiphertextRejected("the tag does not match") from None
        return plaintext + b"!" if self.lie else plaintext

    def describe(self, key: KeyLocator) -> KeyAttributes:
        """Type and permissions."""
        self.calls.append("describe")
        found = self._find(key)
        return KeyAttributes(f"AES_{8 * len(found.value)}", found.usage)

    def _find(self, key: KeyLocator) -> SoftwareKey:
        found = self.keys.get(key.label)
        if found is None:
            raise KeyNotFound(f"no key {key.label!r}")
        return found

    def _usable(self, key: KeyLocator, usage: str) -> SoftwareKey:
        found = self._find(key)
        if usage not in found.usage:
            raise KeyUsageRefused(f"the key {key.label!r} does not permit {usage}")
        return found

    # ---- Hsm

    async def run(self, work: Callable[[KeySession], T], *, deadline: float, timing: Timing) -> T:
        """Runs `work` at once, on the loop; the deadline must lie ahead."""
        del deadline
        self.calls.append("run")
        timing.hsm = 0.001
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        return work(self)

    def health(self) -> HsmHealth:
        """As set."""
        return HsmHealth("software-1", "Nobody", "Software 1.0", self.status, "as set", self.checked_at)

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    def reload_keys(self) -> None:
        """Keys are always seen."""

    def gauges(self) -> HsmGauges:
        """An HSM of one session."""
        return HsmGauges(1, 0, 0, 0, breaker_open=False, module_epoch=1, encryptions=0, decryptions=0)
