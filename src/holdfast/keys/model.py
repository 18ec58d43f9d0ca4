"""The catalog as the proxy reads it: immutable, complete, swapped whole when its version changes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from holdfast.keys.states import GenerationState
from holdfast.xks.aad import AadFraming, CiphertextMetadata
from holdfast.xks.types import KeyStatus, SecretAccessKey, UriPathPrefix


@dataclass(frozen=True, slots=True)
class Generation:
    """One key in an HSM behind an external key. `id` is the catalog's row, `number` what the metadata carries.

    `label` and `cka_id` locate the key in the token of the HSM named `hsm`. `token_serial` is the token that it was
    last found in. `canary` is what the key made of a known text (None: not made yet), for the HSM's proof that this
    is still the same key. `stopped` says why the key may not be used until a person releases it; None: it may.
    `looks`: how often the nodes were asked to look for the key.
    """

    id: int
    number: int
    hsm: str
    label: str
    cka_id: bytes | None = None
    canary: bytes | None = field(default=None, repr=False)
    stopped: str | None = None
    token_serial: str | None = None
    state: GenerationState = GenerationState.ACTIVE
    looks: int = 0


@dataclass(frozen=True, slots=True)
class Takeover:
    """The external key also decrypts what AWS's sample proxy made.

    `ciphertext_metadata` is that proxy's constant at the time, for the record: Decrypt accepts any (decision 0013).
    """

    ciphertext_metadata: bytes | None = None


@dataclass(frozen=True, slots=True)
class ExternalKey:
    """An external key. `active` encrypts; its generations decrypt as their states allow, found by their numbers.

    `tag` is what its ciphertexts are known by, where they are of `metadata_format` 2. `pinned_to`: the
    ARNs of the KMS keys that it serves; empty: every one.
    """

    external_key_id: str
    status: KeyStatus
    active: Generation
    generations: Mapping[int, Generation]
    takeover: Takeover | None = None
    tag: bytes | None = None
    metadata_format: int = 1
    enabled_until: datetime | None = None
    pinned_to: tuple[str, ...] = ()

    def status_at(self, now: datetime) -> KeyStatus:
        """Its status by the clock: one that was enabled for a time is disabled afterwards."""
        return KeyStatus.DISABLED if self.enabled_until is not None and now >= self.enabled_until else self.status

    def metadata(self, framing: AadFraming) -> CiphertextMetadata:
        """What a ciphertext that is made now carries."""
        return CiphertextMetadata(framing, self.active.number, self.tag if self.metadata_format > 1 else None)


@dataclass(frozen=True, slots=True)
class Keystore:
    """A path prefix, its live credentials (by access key id) and its keys (by external key id).

    `faulty`: external keys of which a row of the catalog is wrong, and what is wrong with it. They are not in `keys`.
    `unreadable`: the number of live credentials that are missing because their secret cannot be read here.
    `blocked_until`: when a block ends by itself; None: never.
    """

    name: str
    prefix: UriPathPrefix
    blocked: bool
    region: str | None
    credentials: Mapping[str, SecretAccessKey]
    keys: Mapping[str, ExternalKey]
    faulty: Mapping[str, str] = field(default_factory=dict)
    unreadable: int = 0
    blocked_until: datetime | None = None

    def at(self, now: datetime) -> "Keystore":
        """As it is by the clock: one that was blocked for a time is open afterwards."""
        if self.blocked and self.blocked_until is not None and now >= self.blocked_until:
            return replace(self, blocked=False)
        return self

    def blocked_at_least(self, until: datetime | None) -> "Keystore":
        """Blocked until then, or longer where it is so already; None: without an end."""
        if self.blocked and (self.blocked_until is None or (until is not None and until <= self.blocked_until)):
            return self
        return replace(self, blocked=True, blocked_until=until)

    def blocked_without_end(self) -> "Keystore":
        """Blocked, whatever end a block in the catalog has."""
        return self.blocked_at_least(None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every keystore by its path prefix, as of one catalog version. `fleet_size` counts the live proxies.

    In words for the operator: `unreadable` names the credentials that are refused because their secret cannot be
    read, `bad_rows` the rows of the catalog that are wrong and what stands still because of them, `unexplained` what
    was changed in the database without a record.
    """

    version: int
    keystores: Mapping[str, Keystore] = field(default_factory=dict)
    fleet_size: int = 1
    unreadable: tuple[str, ...] = ()
    bad_rows: tuple[str, ...] = ()
    unexplained: tuple[str, ...] = ()
