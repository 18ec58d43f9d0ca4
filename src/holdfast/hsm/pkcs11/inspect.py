"""Blocking access to a module from one thread, for the commands: `init`, `doctor`, `key`."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from os import urandom
from types import TracebackType
from typing import Final, Self, TypeVar

from holdfast.hsm import faults
from holdfast.hsm.faults import HsmFault
from holdfast.hsm.pkcs11 import ckr
from holdfast.hsm.pkcs11.canary import CANARY_AAD, CANARY_TEXT, canary_opens
from holdfast.hsm.pkcs11.constants import (
    CKA_CLASS,
    CKA_EC_PARAMS,
    CKA_EC_POINT,
    CKA_EXTRACTABLE,
    CKA_ID,
    CKA_KEY_TYPE,
    CKA_LABEL,
    CKA_PRIVATE,
    CKA_SENSITIVE,
    CKA_TOKEN,
    CKA_VALUE_LEN,
    CKA_VERIFY,
    CKF_DECRYPT,
    CKF_ENCRYPT,
    CKK_AES,
    CKK_EC,
    CKM_AES_CMAC,
    CKM_AES_KEY_GEN,
    CKM_EC_KEY_PAIR_GEN,
    CKM_ECDSA,
    CKM_NAMES,
    CKO_PRIVATE_KEY,
    CKO_PUBLIC_KEY,
    CKO_SECRET_KEY,
    USAGES,
)
from holdfast.hsm.pkcs11.cryptoki import CkrError, LibraryInfo, TokenInfo
from holdfast.hsm.pkcs11.gcm import GcmChannel
from holdfast.hsm.pkcs11.handles import FoundHandle, find_one, read_key, template_of
from holdfast.hsm.pkcs11.iv import BadIv, IvGuard, IvOutcome
from holdfast.hsm.pkcs11.iv_probe import IvProbe, probe_iv
from holdfast.hsm.pkcs11.login import Login
from holdfast.hsm.pkcs11.module import Module
from holdfast.hsm.pkcs11.profile import Profile, profile_of
from holdfast.hsm.pkcs11.session import FAULTS, fault_of
from holdfast.hsm.pkcs11.token import TokenMissing, choose_token, tokens
from holdfast.hsm.port import KeyAttributes, KeyLocator
from holdfast.hsm.settings import HsmSettings, IvMode
from holdfast.xks.aad import CiphertextMetadata, hsm_aad

T = TypeVar("T")

LibraryDescription = LibraryInfo
TokenDescription = TokenInfo


@dataclass(frozen=True, slots=True)
class MechanismDescription:
    """A mechanism of the token; `name` is `CKM_...`, or the number in hexadecimal. Key sizes as the module counts."""

    number: int
    name: str
    min_key_size: int
    max_key_size: int
    encrypts: bool
    decrypts: bool


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A CKO_SECRET_KEY of the token. `id` is CKA_ID, empty where the token has none.

    `handle` is for the Inspector that found it: nShield does not find again what it has just made.
    """

    label: str
    id: bytes
    attributes: KeyAttributes
    handle: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key on P-256 of the token. `public` is the DER of its SubjectPublicKeyInfo."""

    label: str
    public: bytes
    handle: int = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class BadTag:
    """How the module reports a wrong tag. `expected`: the profile counts this code as a bad ciphertext.

    `ckr` 0 means that the module accepted a wrong tag.
    """

    ckr: int
    name: str
    expected: bool


@dataclass(frozen=True, slots=True)
class GcmSettings:
    """Who makes the IV, and the form of CK_GCM_PARAMS."""

    iv_mode: IvMode
    gcm_parameter_bytes: int
    iv_bits: bool

    def of(self, profile: Profile) -> Profile:
        """The profile with these settings."""
        return replace(
            profile,
            iv_mode=self.iv_mode,
            iv_length=self._iv_length(profile),
            gcm_parameter_bytes=self.gcm_parameter_bytes,
            iv_bits=self.iv_bits,
        )

    def changes(self, profile: Profile) -> tuple[str, ...]:
        """The lines for the HSM's table in which this differs from the profile."""
        wanted = {
            "iv_mode": f'"{self.iv_mode}"',
            "iv_length": str(self._iv_length(profile)),
            "gcm_parameter_bytes": str(self.gcm_parameter_bytes),
            "iv_bits": str(self.iv_bits).lower(),
        }
        other = self.of(profile)
        return tuple(
            f"{name} = {value}" for name, value in wanted.items() if getattr(profile, name) != getattr(other, name)
        )

    def _iv_length(self, profile: Profile) -> int:
        if self.iv_mode is profile.iv_mode:
            return profile.iv_length
        return 16 if self.iv_mode is IvMode.HSM_APPENDED else 12


# Without ulIvBits (40 bytes) there is nothing to fill in.
_EVERY_SETTING: Final = tuple(
    GcmSettings(mode, size, bits) for mode in IvMode for size, bits in ((48, True), (48, False), (40, True))
)


class Inspector:
    """Use as a context manager: entering loads the module and initialises it, leaving finalizes it.

    Every method raises HsmFault with a sentence for the operator. Beside a running Pkcs11Hsm of the same
    library in the same process it shares that one's C_Initialize.
    """

    def __init__(self, settings: HsmSettings) -> None:
        self.settings = settings
        self._profile = profile_of(settings)
        self._module: Module
        self._session: int | None = None
        self._channel: GcmChannel
        self._login: Login
        self._asked_login = False

    def __enter__(self) -> Self:
        settings = self.settings
        try:
            self._module = Module.acquire(settings.library, self._profile.environment, settings.initialize_string)
        except CkrError as error:
            raise _fault(error) from None
        self._cryptoki = self._module.cryptoki
        self._login = Login(self._cryptoki, self._profile, self.settings.pin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            # Where the device is gone C_CloseSession fails; C_Finalize comes next.
            with suppress(CkrError):
                self._cryptoki.close_session(self._session)
            self._session = None
        self._module.release()

    # ---- the library and its tokens

    def library(self) -> LibraryDescription:
        """The library's own description."""
        return _translated(self._cryptoki.info)

    def tokens(self) -> list[TokenDescription]:
        """Every slot with a token, initialised or not, in the library's order."""
        return _translated(lambda: tokens(self._cryptoki))

    def token(self) -> TokenDescription:
        """The one that `settings.token` chooses. Raises ModuleFailed if none or several match, naming all."""
        return _translated(lambda: choose_token(self._cryptoki, self.settings.token))

    def mechanisms(self) -> list[MechanismDescription]:
        """What the chosen token lists."""
        slot = self.token().slot
        return _translated(lambda: [self._mechanism(slot, number) for number in self._cryptoki.mechanisms(slot)])

    def _mechanism(self, slot: int, number: int) -> MechanismDescription:
        info = self._cryptoki.mechanism_info(slot, number)
        return MechanismDescription(
            number,
            CKM_NAMES.get(number, f"0x{number:X}"),
            info.min_key_size,
            info.max_key_size,
            encrypts=bool(info.flags & CKF_ENCRYPT),
            decrypts=bool(info.flags & CKF_DECRYPT),
        )

    # ---- the session

    def log_in(self) -> bool:
        """Open a session, and log in as `settings.login` says; whether a login was wanted. Raises LoginRefused.

        The methods below call it themselves.
        """
        self._open()
        return self._asked_login

    def _open(self) -> int:
        if self._session is None:
            token = self.token()
            session = _translated(
                lambda: self._cryptoki.open_session(token.slot, read_write=self._profile.read_write_sessions)
            )
            self._session = session
            self._asked_login = self._login.wanted(token)
            _translated(lambda: self._login.log_in(session, token))
            self._channel = GcmChannel(self._cryptoki, session, self._profile)
        return self._session

    # ---- keys

    def find_keys(self, label: str | None = None, key_id: bytes | None = None) -> list[FoundKey]:
        """Every secret key of the token with this label and CKA_ID (None: any)."""
        session = self._open()
        return _translated(
            lambda: [
                self._described(handle)
                for handle in self._cryptoki.find_objects(session, template_of(label, key_id), limit=_MOST_KEYS)
            ]
        )

    def _described(self, handle: int) -> FoundKey:
        session = self._open()
        label = self._cryptoki.attribute(session, handle, CKA_LABEL) or b""
        key_id = self._cryptoki.attribute(session, handle, CKA_ID) or b""
        return FoundKey(
            label.decode("utf-8", "replace"), key_id, read_key(self._cryptoki, session, handle).attributes, handle
        )

    def generate_aes_256(
        self, label: str, key_id: bytes, *, usages: Collection[str] = ("ENCRYPT", "DECRYPT")
    ) -> FoundKey:
        """A new AES-256 key of the token: sensitive, not extractable. Raises KeyAmbiguous if the label exists.

        `usages` are XKS words; all others are switched off.
        """
        if self.find_keys(label):
            raise faults.KeyAmbiguous(f"the token has a secret key with the label {label!r} already: choose another")
        template: dict[int, bytes | bool | int] = {
            CKA_CLASS: CKO_SECRET_KEY,
            CKA_KEY_TYPE: CKK_AES,
            CKA_TOKEN: True,
            CKA_PRIVATE: self._profile.private_keys and self._asked_login,
            CKA_SENSITIVE: True,
            CKA_EXTRACTABLE: False,
            CKA_LABEL: label.encode(),
            CKA_ID: key_id,
            CKA_VALUE_LEN: _AES_256,
            **{attribute: word in usages for word, attribute in USAGES.items()},
        }
        session = self._open()
        return _translated(lambda: self._described(self._cryptoki.generate_key(session, CKM_AES_KEY_GEN, template)))

    def destroy_key(self, key: FoundKey) -> None:
        """Destroy a key; for undoing a creation that failed half way."""
        _translated(lambda: self._cryptoki.destroy_object(self._open(), key.handle))

    def _find(self, locator: KeyLocator) -> FoundHandle:
        session = self._open()
        return _translated(lambda: find_one(self._cryptoki, session, locator))

    # ---- key confirmation

    def seal_canary(self, key: FoundKey) -> bytes:
        """A canary of the key: one encryption. Raises IvUnsafe if the module's IV is not one."""
        iv, sealed = _translated(lambda: self._channel.encrypt(key.handle, CANARY_TEXT, CANARY_AAD))
        _translated(lambda: IvGuard().check(KeyLocator(key.label), iv, self._profile.iv_length))
        if not _translated(lambda: self._opens(key.handle, iv + sealed)):
            raise faults.ModuleFailed(f"what the key {key.label!r} has just encrypted does not decrypt")
        return iv + sealed

    def check_value(self, key: FoundKey) -> bytes | None:
        """The first 5 bytes of AES-CMAC over 16 zero bytes (ANSI X9.24-1); None: the key may not sign, or cannot.

        Never the older check value, AES of a block of zeros, which is also PKCS#11's CKA_CHECK_VALUE: for AES-GCM
        that block is the key of GHASH (NIST SP 800-38D, 7.1), and whoever knows it forges tags.
        """
        if not key.attributes.attributes.get("CKA_SIGN"):
            return None
        session = self._open()
        try:
            return self._cryptoki.sign(session, CKM_AES_CMAC, key.handle, bytes(16))[:5]
        except CkrError:
            return None

    def keys_that_open(self, canary: bytes, label: str | None = None, key_id: bytes | None = None) -> list[FoundKey]:
        """Those of the token's secret keys with this label and CKA_ID (None: any) that open the canary."""
        session = self._open()

        def look() -> list[FoundKey]:
            handles = self._cryptoki.find_objects(session, template_of(label, key_id), limit=_MOST_KEYS)
            return [self._described(handle) for handle in handles if self._opens(handle, canary)]

        return _translated(look)

    def _opens(self, handle: int, canary: bytes) -> bool:
        found = read_key(self._cryptoki, self._open(), handle)
        return found.decrypts and found.is_aes_256 and canary_opens(self._channel, handle, canary, self._profile)

    # ---- keys that sign

    def generate_p256(self, label: str, key_id: bytes) -> SigningKey:
        """A new key pair on P-256 of the token: it signs only, and never leaves it. Raises KeyAmbiguous.

        Its class and type keep it apart from every key that encrypts (docs/decisions: a key has one purpose).
        """
        session = self._open()
        if self._of_class(CKO_PRIVATE_KEY, label):
            raise faults.KeyAmbiguous(f"the token has a private key with the label {label!r} already: choose another")
        both: dict[int, bytes | bool | int] = {CKA_TOKEN: True, CKA_LABEL: label.encode(), CKA_ID: key_id}
        others = {attribute: False for word, attribute in USAGES.items() if word in _PRIVATE_USAGES}
        private: dict[int, bytes | bool | int] = {
            **both,
            CKA_PRIVATE: self._profile.private_keys and self._asked_login,
            CKA_SENSITIVE: True,
            CKA_EXTRACTABLE: False,
            **others,
            USAGES["SIGN"]: True,
        }
        public: dict[int, bytes | bool | int] = {
            **both,
            CKA_PRIVATE: False,
            CKA_EC_PARAMS: _P256_PARAMETERS,
            CKA_VERIFY: True,
        }
        _, handle = _translated(
            lambda: self._cryptoki.generate_key_pair(session, CKM_EC_KEY_PAIR_GEN, public=public, private=private)
        )
        return SigningKey(label, self._public_of(label, handle), handle)

    def find_p256(self, label: str) -> SigningKey:
        """The private key with this label. Raises KeyNotFound, KeyAmbiguous, KeyUsageRefused, KeyUntrusted."""
        handles = self._of_class(CKO_PRIVATE_KEY, label)
        if not handles:
            raise faults.KeyNotFound(f"the token has no private key with the label {label!r}")
        if len(handles) > 1:
            raise faults.KeyAmbiguous(f"the token has {len(handles)} private keys with the label {label!r}")
        (handle,) = handles
        session = self._open()
        if _translated(lambda: self._cryptoki.boolean(session, handle, USAGES["SIGN"])) is False:
            raise faults.KeyUsageRefused(f"the private key {label!r} may not sign (CKA_SIGN is false)")
        if _translated(lambda: self._cryptoki.boolean(session, handle, CKA_EXTRACTABLE)):
            raise faults.KeyUntrusted(
                f"the private key {label!r} is extractable: what it signs could have been signed outside the HSM"
            )
        return SigningKey(label, self._public_of(label, handle), handle)

    def sign_p256(self, key: SigningKey, message: bytes) -> bytes:
        """R and s side by side, 64 bytes: ECDSA over the message's SHA-256."""
        session = self._open()
        digest = sha256(message).digest()
        return _translated(lambda: self._cryptoki.sign(session, CKM_ECDSA, key.handle, digest))

    def _of_class(self, kind: int, label: str) -> list[int]:
        session = self._open()
        template: dict[int, bytes | bool | int] = {
            CKA_CLASS: kind,
            CKA_KEY_TYPE: CKK_EC,
            CKA_TOKEN: True,
            CKA_LABEL: label.encode(),
        }
        return _translated(lambda: self._cryptoki.find_objects(session, template, limit=_MOST_KEYS))

    def _public_of(self, label: str, private: int) -> bytes:
        """From the public key, or, where the module shows it there, from the private one."""
        session = self._open()
        for handle in (*self._of_class(CKO_PUBLIC_KEY, label), private):
            raw = _translated(partial(self._cryptoki.attribute, session, handle, CKA_EC_POINT))
            # PKCS#11, section on CKK_EC: the point is an OCTET STRING in DER. Some modules give it bare.
            point = (raw or b"").removeprefix(_OCTET_STRING_65)
            if len(point) == _POINT_BYTES:
                return _P256_SUBJECT_PUBLIC_KEY_INFO + point
        raise faults.KeyUsageRefused(f"the token shows no public key on P-256 with the label {label!r}")

    # ---- probes

    def round_trip(self, locator: KeyLocator, *, plaintext_bytes: int = 4300, aad_bytes: int = 8192) -> None:
        """Encrypt and decrypt at XKS's full sizes, framed as the profile frames. Raises HsmFault."""
        handle = self._find(locator).handle
        plaintext = urandom(plaintext_bytes)
        framing = self._profile.aad_framing
        aad = hsm_aad(urandom(aad_bytes), CiphertextMetadata(framing, 1).to_bytes(), framing)
        iv, sealed = _translated(lambda: self._channel.encrypt(handle, plaintext, aad))
        if _translated(lambda: self._channel.decrypt(handle, iv, sealed, aad)) != plaintext:
            raise faults.ModuleFailed("the key decrypts to something other than what was encrypted")

    def probe_iv(self, locator: KeyLocator) -> IvProbe:
        """Who makes the IV: two encryptions and decryptions. Raises HsmFault only for what is not about the IV."""
        handle = self._find(locator).handle
        return _translated(lambda: probe_iv(self._channel, handle, self._profile))

    def working_settings(self, locator: KeyLocator) -> list[GcmSettings]:
        """Every way to call AES-GCM that this module takes with safe IVs, those nearest to the profile first."""
        found = [settings for settings in _EVERY_SETTING if self._works(locator, settings)]
        return sorted(found, key=lambda settings: len(settings.changes(self._profile)))

    def _works(self, locator: KeyLocator, settings: GcmSettings) -> bool:
        handle = self._find(locator).handle
        profile = settings.of(self._profile)
        slot = self.token().slot
        try:
            # A separate session: an operation that failed may still be active on it.
            session = self._cryptoki.open_session(slot, read_write=self._profile.read_write_sessions)
            try:
                channel = GcmChannel(self._cryptoki, session, profile)
                return probe_iv(channel, handle, profile).outcome is IvOutcome.SAFE
            finally:
                self._cryptoki.close_session(session)
        except CkrError:
            return False

    def probe_bad_tag(self, locator: KeyLocator) -> BadTag:
        """How the module reports a wrong tag."""
        handle = self._find(locator).handle
        iv, sealed = _translated(lambda: self._channel.encrypt(handle, b"holdfast", b"holdfast"))
        wrong = sealed[:-1] + bytes([sealed[-1] ^ 1])
        try:
            self._channel.decrypt(handle, iv, wrong, b"holdfast")
        except CkrError as error:
            ambiguous = self._profile.ambiguous_bad_tag
            found = ckr.verdict(error.function, error.ckr, ambiguous_bad_tag=ambiguous)
            expected = found in (ckr.Verdict.CIPHERTEXT, ckr.Verdict.CIPHERTEXT_LENGTH)
            return BadTag(error.ckr, ckr.name(error.ckr), expected)
        return BadTag(ckr.Ckr.OK, "CKR_OK: the module accepted a wrong tag", expected=False)


_MOST_KEYS: Final = 10_000
_AES_256: Final = 32
_PRIVATE_USAGES: Final = frozenset({"DECRYPT", "SIGN", "UNWRAP", "DERIVE"})
_P256_PARAMETERS: Final = bytes.fromhex("06082a8648ce3d030107")
_P256_SUBJECT_PUBLIC_KEY_INFO: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_OCTET_STRING_65: Final = b"\x04\x41"
_POINT_BYTES: Final = 65


def _translated(call: Callable[[], T]) -> T:
    """The call's result; what the binding raises becomes an HsmFault."""
    try:
        return call()
    except CkrError as error:
        raise _fault(error) from None
    except BadIv as bad:
        raise faults.IvUnsafe(bad.message) from None
    except TokenMissing as missing:
        raise faults.ModuleFailed(missing.message) from None


def _fault(error: CkrError) -> HsmFault:
    return fault_of(error, FAULTS[ckr.verdict(error.function, error.ckr, ambiguous_bad_tag=frozenset())])
