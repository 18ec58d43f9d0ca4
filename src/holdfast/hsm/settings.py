"""What an operator says about one HSM."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal

from annotated_types import Interval

from holdfast.xks.secret import Secret


class LoginMode(StrEnum):
    """Whether C_Login is called. AUTO: only if the token has CKF_LOGIN_REQUIRED."""

    USER = "user"
    NONE = "none"
    AUTO = "auto"


class IvMode(StrEnum):
    """Who makes the IV, and where it comes back."""

    HSM_IN_PLACE = "hsm-in-place"
    HSM_APPENDED = "hsm-appended"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class TokenSelector:
    """Exactly one of the three is set."""

    label: str | None = None
    serial: str | None = None
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class HsmSettings:
    """One `[hsm.NAME]` table, with its PIN read. What is None is as the profile says."""

    name: str = field(metadata={"toml": False})
    profile: str
    """Vendor-specific behaviour: IV, error codes, login, limits."""
    library: str
    """The vendor's PKCS#11 module."""
    token: TokenSelector
    """Which token of the module, by exactly one of the three."""
    health_key: str
    """CKA_LABEL of an AES-256 key for start-up and health probes; never a key of KMS."""
    login: LoginMode | None = None
    """Whether to log in: "auto" if the token asks for it. Left out: as the profile says."""
    pin: Secret | None = None
    """The user PIN or passphrase; the file says where it is. One newline at its end is dropped."""
    sessions: Annotated[int, Interval(ge=1, le=1_024)] = 8
    """Sessions per worker, each with a thread: calls to the HSM at one time."""
    queue: Annotated[int, Interval(ge=1, le=65_536)] = 256
    """Requests per worker that may wait for a session; one more is throttled."""
    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables set before the module is loaded."""
    iv_mode: IvMode | None = None
    """Who makes the IV and where it comes back. Left out: as the profile says. Probed at every start."""
    iv_length: Literal[12, 16] | None = None
    """Bytes of the IV. Left out: as the profile says."""
    gcm_parameter_bytes: Literal[40, 48] | None = None
    """Size of CK_GCM_PARAMS: 48 with ulIvBits, 40 without. Left out: as the profile says."""
    iv_bits: bool | None = None
    """Whether ulIvBits is filled in. Left out: as the profile says."""
    mechanism: Annotated[int, Interval(ge=0, le=2**64 - 1)] | None = None
    """CKM_ number of AES-GCM, as in 0x1087. Left out: as the profile says."""
    read_write_sessions: bool | None = None
    """Whether sessions are opened read-write. Left out: as the profile says."""
    probe_interval_s: Annotated[float, Interval(ge=1, le=60)] = 10
    """Between two health probes. KMS must not see a result older than a minute."""
    initialize_string: str | None = None
    """Passed to C_Initialize as pReserved. Only NSS softokn needs it, as in
    "configdir='sql:/path' certPrefix='' keyPrefix='' secmod='' flags=noModDB"; left out: none, as PKCS#11 says."""
    standby: bool = False
    """Whether no node uses it: only doctor and `holdfast key drill` look into it."""
    world: str | None = None
    """HKNSO of the nShield Security World, as `nfkminfo` shows it: recorded with each key that is registered."""
    allow_extractable: bool = False
    """Serve keys that are extractable, not sensitive or imported, so that copies may exist outside the HSM. Without
    it they are refused."""
