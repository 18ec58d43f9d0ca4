"""What is known of each vendor's module, as data. Sources: docs/hsm-notes.md."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from holdfast.hsm.faults import ModuleFailed
from holdfast.hsm.pkcs11.ckr import Ckr
from holdfast.hsm.pkcs11.constants import CKM_AES_GCM
from holdfast.hsm.settings import HsmSettings, IvMode, LoginMode
from holdfast.xks.aad import AadFraming


@dataclass(frozen=True, slots=True)
class Profile:
    """How one vendor's module does AES-GCM, logins and errors.

    `iv_length` in bytes; `iv_bits`: whether ulIvBits is filled in (CloudHSM wants 0). `ambiguous_bad_tag`: the
    CKR_ values that may mean a wrong tag, and may mean that the module failed. `data_limit`: bytes of
    plaintext or AAD, None for no known limit. `device_error_may_pass`: CKR_DEVICE_ERROR may be throttling.
    `private_keys`: whether new keys get CKA_PRIVATE true. `generates_keys`: whether C_GenerateKey is the way to make
    keys; else a tool of the vendor's is. `set_up`: what to check when the module does not start.
    """

    name: str
    iv_mode: IvMode
    aad_framing: AadFraming
    iv_length: int = 12
    gcm_parameter_bytes: int = 48
    iv_bits: bool = True
    mechanism: int = CKM_AES_GCM
    read_write_sessions: bool = True
    login: LoginMode = LoginMode.AUTO
    environment: Mapping[str, str] = field(default_factory=dict)
    ambiguous_bad_tag: frozenset[int] = frozenset()
    data_limit: int | None = None
    device_error_may_pass: bool = False
    private_keys: bool = True
    generates_keys: bool = True
    set_up: str = "Check the module's configuration and that the vendor's service runs, as the vendor describes."


PROFILES: Final = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                "softhsm2",
                IvMode.PROXY,
                AadFraming.SPEC,
                # SoftHSM up to 2.6.1; 2.7.0 says CKR_ENCRYPTED_DATA_INVALID.
                ambiguous_bad_tag=frozenset({Ckr.GENERAL_ERROR}),
                set_up="Check that SOFTHSM2_CONF in `environment` names SoftHSM's configuration file, and that the"
                " `directories.tokendir` in it exists and is readable by this user.",
            ),
            Profile(
                "nshield",
                IvMode.HSM_IN_PLACE,
                AadFraming.DIGEST,
                environment=MappingProxyType({"CKNFAST_LOADSHARING": "1"}),
                ambiguous_bad_tag=frozenset({Ckr.FUNCTION_FAILED}),
                # An accelerator slot holds no private objects.
                private_keys=False,
                # FIPS 140 level 3 worlds want a card for each key; `generatekey` asks for it.
                generates_keys=False,
                set_up="Check that the hardserver runs (`enquiry` shows it and its modules), that this user is in the"
                " group nfast, and that the files of the Security World are in /opt/nfast/kmdata/local.",
            ),
            Profile(
                "luna",
                IvMode.HSM_APPENDED,
                AadFraming.DIGEST,
                iv_length=16,
                set_up="Check that Luna's client is configured for this user: the file Chrystoki.conf, the client's"
                " certificate and the partition assigned to it.",
            ),
            Profile(
                "cloudhsm",
                IvMode.HSM_IN_PLACE,
                AadFraming.DIGEST,
                iv_bits=False,
                data_limit=16 * 1024,
                device_error_may_pass=True,
                ambiguous_bad_tag=frozenset({Ckr.FUNCTION_FAILED}),
                set_up="Check that the CloudHSM client is configured with the cluster's address; a cluster of one HSM"
                " needs --disable-key-availability-check.",
            ),
            Profile(
                "generic",
                IvMode.PROXY,
                AadFraming.SPEC,
                ambiguous_bad_tag=frozenset({Ckr.FUNCTION_FAILED, Ckr.GENERAL_ERROR}),
            ),
        )
    }
)

_PARAMETER_BYTES: Final = (48, 40)
_IV_LENGTHS: Final = (12, 16)  # Spec, "Encrypt": initializationVector


def profile_of(settings: HsmSettings) -> Profile:
    """The profile with the operator's changes. Raises ModuleFailed for an unknown profile or a value out of range."""
    known = PROFILES.get(settings.profile)
    if known is None:
        raise ModuleFailed(f"there is no HSM profile {settings.profile!r}; there are {', '.join(PROFILES)}")
    changes = {
        name: value
        for name in (
            "iv_mode",
            "iv_length",
            "gcm_parameter_bytes",
            "iv_bits",
            "mechanism",
            "read_write_sessions",
            "login",
        )
        if (value := getattr(settings, name)) is not None
    }
    if changes.get("iv_mode") is IvMode.HSM_APPENDED and known.iv_mode is not IvMode.HSM_APPENDED:
        changes.setdefault("iv_length", 16)
    profile = replace(known, **changes, environment={**known.environment, **settings.environment})
    if profile.iv_length not in _IV_LENGTHS:
        raise ModuleFailed(f"iv_length is {profile.iv_length}; AWS KMS takes IVs of 12 or 16 bytes")
    if profile.gcm_parameter_bytes not in _PARAMETER_BYTES:
        raise ModuleFailed(f"gcm_parameter_bytes is {profile.gcm_parameter_bytes}; modules know 48 or 40")
    return profile
