"""What an operator says about one HSM."""

from dataclasses import dataclass, field
from enum import StrEnum

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
    """One `[hsm.NAME]` table, with its PIN read. None means: as the profile says.

    `allow_extractable`: serve keys of which a copy may exist outside the HSM. `health_key` is the CKA_LABEL of the
    AES-256 key that start-up and health probes use. `environment` is set in the process before the module is loaded.
    `initialize_string` is what NSS softokn takes through C_Initialize
    (`configdir='sql:/path' certPrefix='' keyPrefix='' secmod='' flags=noModDB`); no other module wants one.
    """

    name: str
    profile: str
    library: str
    token: TokenSelector
    health_key: str
    login: LoginMode | None = None
    pin: Secret | None = None
    sessions: int = 8
    queue: int = 256
    environment: dict[str, str] = field(default_factory=dict)
    iv_mode: IvMode | None = None
    iv_length: int | None = None
    gcm_parameter_bytes: int | None = None
    iv_bits: bool | None = None
    mechanism: int | None = None
    read_write_sessions: bool | None = None
    probe_interval: float = 10.0
    initialize_string: str | None = None
    allow_extractable: bool = False
