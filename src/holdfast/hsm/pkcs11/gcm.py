"""AES-GCM on one session, with buffers made once: what a call costs beyond the C_ calls is a few microseconds."""

from typing import Any, Final

from holdfast.hsm.faults import ModuleFailed
from holdfast.hsm.pkcs11.cryptoki import CkrError, Cryptoki, ffi
from holdfast.hsm.pkcs11.iv import BadIv, IvOutcome
from holdfast.hsm.pkcs11.profile import Profile
from holdfast.hsm.settings import IvMode

TAG_BYTES: Final = 16
_TAG_BITS: Final = 8 * TAG_BYTES
_APPENDED_IV: Final = 16
_ROOM: Final = 16 * 1024
_RANDOM_BYTES: Final = 4096


class GcmChannel:
    """C_EncryptInit, C_Encrypt, C_DecryptInit and C_Decrypt on one session, used by one thread at a time.

    The buffers are malloc-ed and stay where they are from C_EncryptInit until C_Encrypt has returned, so that
    a module may write its IV at either call. Methods raise CkrError; encrypt also BadIv, decrypt ModuleFailed.
    """

    def __init__(self, cryptoki: Cryptoki, session: int, profile: Profile) -> None:
        self._session = session
        self._iv_mode = profile.iv_mode
        self._iv_length = profile.iv_length
        self._iv_bits = profile.iv_bits
        self._encrypt_init: Any = cryptoki.C_EncryptInit
        self._encrypt: Any = cryptoki.C_Encrypt
        self._decrypt_init: Any = cryptoki.C_DecryptInit
        self._decrypt: Any = cryptoki.C_Decrypt
        self._random = RandomIvs(cryptoki, session, profile.iv_length)
        self._iv: Any = ffi.new("CK_BYTE[]", _APPENDED_IV)
        self._iv_view: Any = ffi.buffer(self._iv)
        layout = "CK_GCM_PARAMS *" if profile.gcm_parameter_bytes == _SIX_FIELDS else "CK_GCM_PARAMS_40 *"
        self._parameters: Any = ffi.new(layout, {"ulTagBits": _TAG_BITS})
        self._has_iv_bits = profile.gcm_parameter_bytes == _SIX_FIELDS
        self._mechanism: Any = ffi.new(
            "CK_MECHANISM *",
            {
                "mechanism": profile.mechanism,
                "pParameter": self._parameters,
                "ulParameterLen": ffi.sizeof(self._parameters[0]),
            },
        )
        self._length: Any = ffi.new("CK_ULONG *")
        self._make_room(_ROOM)

    def _make_room(self, room: int) -> None:
        self._room = room
        self._aad: Any = ffi.new("CK_BYTE[]", room)
        self._out: Any = ffi.new("CK_BYTE[]", room + TAG_BYTES + _APPENDED_IV)
        self._out_view: Any = ffi.buffer(self._out)
        self._zeros = bytes(room)
        self._parameters.pAAD = self._aad

    def encrypt(self, key: int, plaintext: bytes, aad: bytes) -> tuple[bytes, bytes]:
        """The IV as the module left it, and ciphertext with tag. BadIv if the output has a wrong length."""
        size = len(plaintext)
        iv_length = self._iv_length
        given = None
        self._prepare(size, aad)
        if self._iv_mode is IvMode.PROXY:
            given = self._random.take()
            self._iv_view[0:iv_length] = given
            self._set_iv(iv_length)
        elif self._iv_mode is IvMode.HSM_IN_PLACE:
            self._iv_view[0:iv_length] = _ZERO[iv_length]
            self._set_iv(iv_length)
        else:
            self._set_iv(0)
        self._length[0] = size + TAG_BYTES + _APPENDED_IV
        value = self._encrypt_init(self._session, self._mechanism, key)
        if value:
            raise CkrError("C_EncryptInit", value)
        value = self._encrypt(self._session, plaintext, size, self._out, self._length)
        if value:
            raise CkrError("C_Encrypt", value)
        length = self._length[0]
        expected = size + TAG_BYTES + (iv_length if self._iv_mode is IvMode.HSM_APPENDED else 0)
        if length != expected:
            raise BadIv(IvOutcome.WRONG_LENGTH, f"C_Encrypt returned {length} bytes instead of {expected}")
        if self._iv_mode is IvMode.HSM_APPENDED:
            return self._out_view[size + TAG_BYTES : length], self._out_view[0 : size + TAG_BYTES]
        iv = self._iv_view[0:iv_length]
        if given is not None and iv != given:
            raise BadIv(IvOutcome.REPLACED, "the module wrote an IV over the one that the proxy gave it")
        return iv, self._out_view[0:length]

    def decrypt(self, key: int, iv: bytes, sealed: bytes, aad: bytes) -> bytes:
        """The plaintext of ciphertext and tag."""
        size = len(sealed)
        self._prepare(size, aad)
        self._iv_view[0 : len(iv)] = iv
        self._set_iv(len(iv))
        self._length[0] = size + TAG_BYTES
        value = self._decrypt_init(self._session, self._mechanism, key)
        if value:
            raise CkrError("C_DecryptInit", value)
        try:
            value = self._decrypt(self._session, sealed, size, self._out, self._length)
            if value:
                raise CkrError("C_Decrypt", value)
            length = self._length[0]
            if length != size - TAG_BYTES:
                raise ModuleFailed(f"C_Decrypt returned {length} bytes for a ciphertext of {size - TAG_BYTES}")
            return bytes(self._out_view[0:length])
        finally:
            self._out_view[0:size] = self._zeros[:size]

    def _prepare(self, size: int, aad: bytes) -> None:
        covered = len(aad)
        if size > self._room or covered > self._room:
            self._make_room(2 * max(size, covered))
        ffi.memmove(self._aad, aad, covered)
        self._parameters.ulAADLen = covered

    def _set_iv(self, length: int) -> None:
        parameters = self._parameters
        parameters.pIv = self._iv if length else ffi.NULL
        parameters.ulIvLen = length
        if self._has_iv_bits:
            parameters.ulIvBits = 8 * length if self._iv_bits else 0


_SIX_FIELDS: Final = 48
_ZERO: Final = {12: bytes(12), 16: bytes(16)}


class RandomIvs:
    """IVs from C_GenerateRandom, 4096 bytes per call. Each byte is used once."""

    def __init__(self, cryptoki: Cryptoki, session: int, length: int) -> None:
        self._generate: Any = cryptoki.C_GenerateRandom
        self._session = session
        self._length = length
        self._buffer: Any = ffi.new("CK_BYTE[]", _RANDOM_BYTES)
        self._bytes = b""
        self._next = 0

    def take(self) -> bytes:
        """The next IV. Raises CkrError, and BadIv if the module gives the same bytes twice."""
        end = self._next + self._length
        if end > len(self._bytes):
            self._fetch()
            end = self._length
        iv = self._bytes[self._next : end]
        self._next = end
        return iv

    def _fetch(self) -> None:
        value = self._generate(self._session, self._buffer, _RANDOM_BYTES)
        if value:
            raise CkrError("C_GenerateRandom", value)
        fresh = bytes(ffi.buffer(self._buffer))
        if fresh == self._bytes:
            raise BadIv(IvOutcome.REPEATED, "C_GenerateRandom returned the same 4096 bytes twice")
        self._bytes = fresh
        self._next = 0
