"""Calls the shim through ctypes, in one process for each test.

A PKCS#11 library holds state for the whole process, so tests must not share one.  Each thread of the test
is served by a thread of the driver, so that calls from two threads are really inside the library together.
"""

from __future__ import annotations

import ctypes
import os
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from typing import TYPE_CHECKING, ClassVar, Final

from tests.shim.control import FUNCTIONS

if TYPE_CHECKING:
    from pathlib import Path

CKA_TOKEN: Final = 0x1
CKA_PRIVATE: Final = 0x2
CKA_LABEL: Final = 0x3
CKA_ID: Final = 0x102
CKM_AES_GCM: Final = 0x1087
ZERO_IV: Final = bytes(12)
_CKA_SENSITIVE: Final = 0x103
_CKA_ENCRYPT: Final = 0x104
_CKA_DECRYPT: Final = 0x105
_CKA_VALUE_LEN: Final = 0x161
_CKA_EXTRACTABLE: Final = 0x162
_CKM_AES_KEY_GEN: Final = 0x1080
_CKF_RW_SESSION: Final = 0x2
_CKF_OS_LOCKING_OK: Final = 0x2
_CKF_SERIAL_SESSION: Final = 0x4
_TAG_BITS: Final = 128


class CkrError(Exception):
    """A C_ function returned something other than CKR_OK."""

    def __init__(self, function: str, ckr: int) -> None:
        super().__init__(function, ckr)
        self.ckr = ckr

    def __str__(self) -> str:
        return f"{self.args[0]}: 0x{self.ckr:X}"


class _Arguments(ctypes.Structure):
    _fields_: ClassVar = [
        ("callbacks", ctypes.c_void_p * 4),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    ]


class _TokenInfo(ctypes.Structure):
    label: bytes
    maker: bytes
    model: bytes
    serial: bytes
    flags: int
    numbers: ctypes.Array[ctypes.c_ulong]
    _fields_: ClassVar = [
        ("label", ctypes.c_char * 32),
        ("maker", ctypes.c_char * 32),
        ("model", ctypes.c_char * 16),
        ("serial", ctypes.c_char * 16),
        ("flags", ctypes.c_ulong),
        ("numbers", ctypes.c_ulong * 10),
        ("versions", ctypes.c_ubyte * 4),
        ("time", ctypes.c_char * 16),
    ]


class _Attribute(ctypes.Structure):
    length: int
    _fields_: ClassVar = [("type", ctypes.c_ulong), ("value", ctypes.c_void_p), ("length", ctypes.c_ulong)]


class _Mechanism(ctypes.Structure):
    _fields_: ClassVar = [("type", ctypes.c_ulong), ("parameter", ctypes.c_void_p), ("length", ctypes.c_ulong)]


class _Template:
    """A CK_ATTRIBUTE array together with the values it points to."""

    def __init__(self, attributes: dict[int, bytes]) -> None:
        self._values = [ctypes.create_string_buffer(value, len(value) or 1) for value in attributes.values()]
        self.array = (_Attribute * (len(attributes) or 1))(
            *(
                _Attribute(kind, ctypes.addressof(value), len(attributes[kind]))
                for kind, value in zip(attributes, self._values, strict=True)
            )
        )
        self.count = len(attributes)


class Module:
    """The shim, loaded after `environ` was set, as a proxy server loads a vendor's library."""

    def __init__(self, library: str, environ: dict[str, str]) -> None:
        os.environ.update(environ)
        table = ctypes.c_void_p()
        rv = ctypes.CDLL(library).C_GetFunctionList(ctypes.byref(table))
        if rv != 0:
            raise CkrError("C_GetFunctionList", rv)
        # CK_VERSION and its padding take the first eight bytes.
        entries = (ctypes.c_void_p * (1 + len(FUNCTIONS))).from_address(table.value or 0)
        self._entries = dict(zip(FUNCTIONS, entries[1:], strict=True))

    def _call(self, function: str, *arguments: object) -> None:
        types = [ctypes.c_ulong if isinstance(argument, int) else ctypes.c_void_p for argument in arguments]
        native = ctypes.CFUNCTYPE(ctypes.c_ulong, *types)(self._entries[function] or 0)
        passed = [
            ctypes.cast(argument, ctypes.c_void_p) if isinstance(argument, ctypes.Array) else argument
            for argument in arguments
        ]
        rv = native(*passed)
        if rv != 0:
            raise CkrError(function, rv)

    # ---- library, slots, sessions

    def initialize(self, *, locking: bool = True) -> None:
        """Call C_Initialize, with CKF_OS_LOCKING_OK or with NULL."""
        arguments = _Arguments(flags=_CKF_OS_LOCKING_OK)
        self._call("C_Initialize", ctypes.addressof(arguments) if locking else 0)

    def finalize(self) -> None:
        """Call C_Finalize."""
        self._call("C_Finalize", None)

    def slots(self, *, token_present: bool = True) -> list[int]:
        """Return the slot list."""
        count = ctypes.c_ulong(64)
        found = (ctypes.c_ulong * 64)()
        self._call("C_GetSlotList", int(token_present), found, ctypes.addressof(count))
        return list(found[: count.value])

    def token(self, slot: int) -> dict[str, str | int]:
        """Return what tests look at in CK_TOKEN_INFO."""
        info = _TokenInfo()
        self._call("C_GetTokenInfo", slot, ctypes.addressof(info))
        texts = {name: getattr(info, name).decode().rstrip() for name in ("label", "maker", "model", "serial")}
        return {**texts, "flags": info.flags, "max_sessions": info.numbers[0], "max_pin": info.numbers[4]}

    def slot_flags(self, slot: int) -> int:
        """Return the flags of CK_SLOT_INFO."""
        info = (ctypes.c_ulong * 16)()  # 96 bytes of text, then the flags
        self._call("C_GetSlotInfo", slot, info)
        return info[12]

    def mechanisms(self, slot: int) -> list[int]:
        """Return the mechanism list."""
        count = ctypes.c_ulong()
        self._call("C_GetMechanismList", slot, None, ctypes.addressof(count))
        found = (ctypes.c_ulong * count.value)()
        self._call("C_GetMechanismList", slot, found, ctypes.addressof(count))
        return list(found[: count.value])

    def mechanism_info(self, slot: int, mechanism: int) -> list[int]:
        """Return key sizes and flags of a mechanism."""
        info = (ctypes.c_ulong * 3)()
        self._call("C_GetMechanismInfo", slot, mechanism, info)
        return list(info)

    def open(self, slot: int, *, read_write: bool = True) -> int:
        """Open a session."""
        handle = ctypes.c_ulong()
        flags = _CKF_SERIAL_SESSION | _CKF_RW_SESSION * read_write
        self._call("C_OpenSession", slot, flags, None, None, ctypes.addressof(handle))
        return handle.value

    def close(self, session: int) -> None:
        """Close a session."""
        self._call("C_CloseSession", session)

    def close_all(self, slot: int) -> None:
        """Close all sessions of a slot."""
        self._call("C_CloseAllSessions", slot)

    def state(self, session: int) -> list[int]:
        """Return slot, state and flags of the session."""
        info = (ctypes.c_ulong * 4)()
        self._call("C_GetSessionInfo", session, info)
        return list(info[:3])

    def login(self, session: int, pin: str) -> None:
        """Log in as the user."""
        self._call("C_Login", session, 1, ctypes.create_string_buffer(pin.encode()), len(pin))

    def logout(self, session: int) -> None:
        """Log out."""
        self._call("C_Logout", session)

    # ---- objects

    def generate_key(self, session: int, label: str, *, private: bool = False, on_token: bool = True) -> int:
        """Make an AES-256 key that is sensitive and not extractable."""
        template = _Template(
            {
                CKA_LABEL: label.encode(),
                CKA_TOKEN: bytes([on_token]),
                CKA_PRIVATE: bytes([private]),
                CKA_ID: b"\1\2",
                _CKA_SENSITIVE: b"\1",
                _CKA_EXTRACTABLE: b"\0",
                _CKA_ENCRYPT: b"\1",
                _CKA_DECRYPT: b"\1",
                _CKA_VALUE_LEN: (32).to_bytes(8, "little"),
            }
        )
        mechanism = _Mechanism(_CKM_AES_KEY_GEN, None, 0)
        handle = ctypes.c_ulong()
        self._call(
            "C_GenerateKey", session, ctypes.addressof(mechanism), template.array, template.count,
            ctypes.addressof(handle),
        )  # fmt: skip
        return handle.value

    def find(self, session: int, attributes: dict[int, bytes]) -> list[int]:
        """Return the first 16 objects that match."""
        template = _Template(attributes)
        found = (ctypes.c_ulong * 16)()
        count = ctypes.c_ulong()
        self._call("C_FindObjectsInit", session, template.array, template.count)
        try:
            self._call("C_FindObjects", session, found, 16, ctypes.addressof(count))
        finally:
            self._call("C_FindObjectsFinal", session)
        return list(found[: count.value])

    def attribute(self, session: int, key: int, kind: int) -> bytes:
        """Return one attribute."""
        value = ctypes.create_string_buffer(64)
        attribute = _Attribute(kind, ctypes.addressof(value), 64)
        self._call("C_GetAttributeValue", session, key, ctypes.addressof(attribute), 1)
        return value.raw[: attribute.length]

    # ---- encryption

    def encrypt(  # noqa: PLR0913 - the fields of CK_GCM_PARAMS that tests vary
        self,
        session: int,
        key: int,
        plaintext: bytes,
        *,
        iv: bytes | None = ZERO_IV,
        iv_bits: int | None = None,
        five_fields: bool = False,
        room: int | None = None,
    ) -> tuple[bytes, bytes, bytes]:
        """Return the output, the IV buffer after C_EncryptInit and the IV buffer after C_Encrypt."""
        buffer = None if iv is None else ctypes.create_string_buffer(iv, len(iv))
        output = ctypes.create_string_buffer(len(plaintext) + 64)
        length = ctypes.c_ulong(len(output) if room is None else room)
        with_iv = self._gcm(buffer, 0 if iv is None else len(iv), iv_bits, five_fields=five_fields)
        self._call("C_EncryptInit", session, ctypes.addressof(with_iv[0]), key)
        after_init = b"" if buffer is None else buffer.raw
        data = ctypes.create_string_buffer(plaintext, len(plaintext) or 1)
        self._call("C_Encrypt", session, data, len(plaintext), output, ctypes.addressof(length))
        return output.raw[: length.value], after_init, b"" if buffer is None else buffer.raw

    def decrypt(  # noqa: PLR0913 - the fields of CK_GCM_PARAMS that tests vary
        self,
        session: int,
        key: int,
        ciphertext: bytes,
        iv: bytes,
        *,
        iv_bits: int | None = None,
        five_fields: bool = False,
    ) -> bytes:
        """Return the plaintext."""
        buffer = ctypes.create_string_buffer(iv, len(iv) or 1)
        output = ctypes.create_string_buffer(len(ciphertext) + 64)
        length = ctypes.c_ulong(len(output))
        with_iv = self._gcm(buffer, len(iv), iv_bits, five_fields=five_fields)
        self._call("C_DecryptInit", session, ctypes.addressof(with_iv[0]), key)
        data = ctypes.create_string_buffer(ciphertext, len(ciphertext) or 1)
        self._call("C_Decrypt", session, data, len(ciphertext), output, ctypes.addressof(length))
        return output.raw[: length.value]

    def _gcm(
        self, iv: ctypes.Array[ctypes.c_char] | None, length: int, iv_bits: int | None, *, five_fields: bool
    ) -> tuple[_Mechanism, object, object]:
        """Return the mechanism and what must live as long as it."""
        aad = ctypes.create_string_buffer(b"aad", 3)
        address = 0 if iv is None else ctypes.addressof(iv)
        bits = [] if five_fields else [8 * length if iv_bits is None else iv_bits]
        fields = [address, length, *bits, ctypes.addressof(aad), 3, _TAG_BITS]
        parameters = (ctypes.c_ulong * len(fields))(*fields)
        mechanism = _Mechanism(CKM_AES_GCM, ctypes.addressof(parameters), ctypes.sizeof(parameters))
        return mechanism, parameters, aad

    def random(self, session: int, length: int) -> bytes:
        """Return bytes of C_GenerateRandom."""
        buffer = ctypes.create_string_buffer(length)
        self._call("C_GenerateRandom", session, buffer, length)
        return buffer.raw

    def status_of_forked_child(self, session: int) -> int:
        """Fork, use the library in the child, and return how the child ended."""
        child = os.fork()
        if child == 0:
            self.random(session, 12)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Driver(BaseManager):
    """A fresh process that holds one `Module`."""

    def __init__(self) -> None:
        super().__init__(ctx=get_context("spawn"))

    if TYPE_CHECKING:

        def module(self, library: str, environ: dict[str, str]) -> Module:
            """Load the library there; `register` below makes this method."""


Driver.register("module", Module)


def start(driver: Driver, library: Path, environ: dict[str, str]) -> Module:
    """Return a stand-in for a `Module` in the driver's process."""
    return driver.module(str(library), environ)
