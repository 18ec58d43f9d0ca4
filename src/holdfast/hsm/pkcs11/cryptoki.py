"""PKCS#11 calls through cffi in ABI mode: no compiler at install, and the GIL is released during each call."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from cffi import FFI

from holdfast.hsm.faults import ModuleFailed
from holdfast.hsm.pkcs11 import ckr
from holdfast.hsm.pkcs11._declarations import DECLARATIONS, FUNCTIONS
from holdfast.hsm.pkcs11.ckr import Ckr
from holdfast.hsm.pkcs11.constants import (
    CKF_LOGIN_REQUIRED,
    CKF_OS_LOCKING_OK,
    CKF_RW_SESSION,
    CKF_SERIAL_SESSION,
    CKF_TOKEN_INITIALIZED,
    CKU_USER,
    UNAVAILABLE_INFORMATION,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holdfast.xks.secret import Secret

ffi: Final[Any] = FFI()
ffi.cdef(DECLARATIONS)

_ULONG_POINTER: Final = "CK_ULONG *"
_ULONG_BYTES: Final = ffi.sizeof("CK_ULONG")
_FIND_BATCH: Final = 64
_LONGEST_ATTRIBUTE: Final = 4096
_LONGEST_SIGNATURE: Final = 1024
_ATTRIBUTE_ABSENT: Final = (Ckr.ATTRIBUTE_SENSITIVE, Ckr.ATTRIBUTE_TYPE_INVALID, Ckr.BUFFER_TOO_SMALL)
"""Normal answers for an attribute that an object does not have or does not show."""


class CkrError(Exception):
    """A C_ function returned something other than CKR_OK."""

    def __init__(self, function: str, value: int) -> None:
        super().__init__(function, value)
        self.function = function
        self.ckr = value

    def __str__(self) -> str:
        return f"{self.function} returned {ckr.name(self.ckr)}"


@dataclass(frozen=True, slots=True)
class LibraryInfo:
    """CK_INFO, padding removed. Versions as `major.minor`."""

    manufacturer: str
    description: str
    version: str
    cryptoki_version: str


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """CK_TOKEN_INFO, padding removed. `max_sessions` None: unlimited, or unknown."""

    slot: int
    label: str
    serial: str
    manufacturer: str
    model: str
    firmware: str
    initialized: bool
    login_required: bool
    max_sessions: int | None


@dataclass(frozen=True, slots=True)
class MechanismInfo:
    """CK_MECHANISM_INFO."""

    min_key_size: int
    max_key_size: int
    flags: int


class Cryptoki:
    """One loaded library. The C_ functions themselves are attributes (`C_Encrypt`), for the hot path.

    `environment` is set in this process before the library is loaded. Raises ModuleFailed if it cannot be
    loaded. Its methods raise CkrError, and ModuleFailed in a process forked after C_Initialize.
    """

    def __init__(self, library: str, environment: Mapping[str, str], initialize_string: str | None = None) -> None:
        os.environ.update(environment)
        try:
            self._library: Any = ffi.dlopen(library)
            table = ffi.new("CK_FUNCTION_LIST **")
            _check("C_GetFunctionList", self._library.C_GetFunctionList(table))
        except (OSError, AttributeError) as error:
            raise ModuleFailed(
                f"the PKCS#11 library {library} cannot be loaded: {error}. Check the path in `library`, and that "
                f"the service user may read the file and what it links to"
            ) from None
        self._table: Any = table[0]
        self._pid = os.getpid()
        self._reserved = ffi.NULL if initialize_string is None else ffi.new("char[]", initialize_string.encode())
        self._bind(None)

    def _bind(self, lock: Lock | None) -> None:
        for name in FUNCTIONS:
            function = getattr(self._table, name)
            if function == ffi.NULL:
                function = _absent
            setattr(self, name, function if lock is None else _serialised(function, lock))

    def __getattr__(self, name: str) -> Any:
        # Only for mypy: `_bind` sets every function as an attribute of the instance.
        raise AttributeError(name)

    def refuse_in_a_fork(self) -> None:
        """Raise ModuleFailed in another process than the one that loaded the library: PKCS#11 is not fork-safe."""
        if os.getpid() != self._pid:
            raise ModuleFailed(
                "this process was forked after C_Initialize, and PKCS#11 does not survive a fork: "
                "start workers by spawn, and the HSM in the worker"
            )

    # ---- the library

    def initialize(self, *, again: bool = False) -> None:
        """C_Initialize with CKF_OS_LOCKING_OK. A module that cannot lock gets one call at a time.

        `again`: CKR_CRYPTOKI_ALREADY_INITIALIZED is success, for a library whose C_Finalize failed and held on.
        """
        self.refuse_in_a_fork()
        arguments = ffi.new("CK_C_INITIALIZE_ARGS *", {"flags": CKF_OS_LOCKING_OK, "pReserved": self._reserved})
        self._bind(None)
        value = self.C_Initialize(arguments)
        if value == Ckr.CANT_LOCK:
            arguments.flags = 0
            value = self.C_Initialize(arguments)
            self._bind(Lock())
        if not (again and value == Ckr.CRYPTOKI_ALREADY_INITIALIZED):
            _check("C_Initialize", value)

    def finalize(self) -> None:
        """C_Finalize. No thread may be inside the library."""
        self.refuse_in_a_fork()
        _check("C_Finalize", self.C_Finalize(ffi.NULL))

    def info(self) -> LibraryInfo:
        """C_GetInfo."""
        info = ffi.new("CK_INFO *")
        _check("C_GetInfo", self.C_GetInfo(info))
        return LibraryInfo(
            _text(info.manufacturerID),
            _text(info.libraryDescription),
            _version(info.libraryVersion),
            _version(info.cryptokiVersion),
        )

    # ---- slots and tokens

    def slots(self) -> list[int]:
        """The slots with a token, in the library's order."""
        self.refuse_in_a_fork()
        count = ffi.new(_ULONG_POINTER)
        # PKCS#11, C_GetSlotList: only a call with a NULL list makes a library look for new slots.
        _check("C_GetSlotList", self.C_GetSlotList(1, ffi.NULL, count))
        slots = ffi.new("CK_ULONG[]", max(count[0], 1))
        _check("C_GetSlotList", self.C_GetSlotList(1, slots, count))
        return [slots[i] for i in range(count[0])]

    def token_info(self, slot: int) -> TokenInfo:
        """C_GetTokenInfo."""
        info = ffi.new("CK_TOKEN_INFO *")
        _check("C_GetTokenInfo", self.C_GetTokenInfo(slot, info))
        sessions = info.ulMaxSessionCount
        return TokenInfo(
            slot,
            _text(info.label),
            _text(info.serialNumber),
            _text(info.manufacturerID),
            _text(info.model),
            _version(info.firmwareVersion),
            initialized=bool(info.flags & CKF_TOKEN_INITIALIZED),
            login_required=bool(info.flags & CKF_LOGIN_REQUIRED),
            max_sessions=None if sessions in (0, UNAVAILABLE_INFORMATION) else sessions,
        )

    def mechanisms(self, slot: int) -> list[int]:
        """C_GetMechanismList."""
        count = ffi.new(_ULONG_POINTER)
        _check("C_GetMechanismList", self.C_GetMechanismList(slot, ffi.NULL, count))
        mechanisms = ffi.new("CK_ULONG[]", max(count[0], 1))
        _check("C_GetMechanismList", self.C_GetMechanismList(slot, mechanisms, count))
        return [mechanisms[i] for i in range(count[0])]

    def mechanism_info(self, slot: int, mechanism: int) -> MechanismInfo:
        """C_GetMechanismInfo."""
        info = ffi.new("CK_MECHANISM_INFO *")
        _check("C_GetMechanismInfo", self.C_GetMechanismInfo(slot, mechanism, info))
        return MechanismInfo(info.ulMinKeySize, info.ulMaxKeySize, info.flags)

    # ---- sessions

    def open_session(self, slot: int, *, read_write: bool) -> int:
        """C_OpenSession: the session's handle."""
        self.refuse_in_a_fork()
        handle = ffi.new(_ULONG_POINTER)
        flags = CKF_SERIAL_SESSION | (CKF_RW_SESSION if read_write else 0)
        _check("C_OpenSession", self.C_OpenSession(slot, flags, ffi.NULL, ffi.NULL, handle))
        return int(handle[0])

    def close_session(self, session: int) -> None:
        """C_CloseSession."""
        _check("C_CloseSession", self.C_CloseSession(session))

    def session_state(self, session: int) -> int:
        """C_GetSessionInfo: the CKS_ state."""
        info = ffi.new("CK_SESSION_INFO *")
        _check("C_GetSessionInfo", self.C_GetSessionInfo(session, info))
        return int(info.state)

    def login(self, session: int, pin: Secret) -> None:
        """C_Login as the user; CKR_USER_ALREADY_LOGGED_IN is success."""
        value = self.C_Login(session, CKU_USER, pin.reveal(), len(pin.reveal()))
        if value != Ckr.USER_ALREADY_LOGGED_IN:
            _check("C_Login", value)

    # ---- objects

    def find_objects(self, session: int, template: Mapping[int, bytes | bool | int], *, limit: int) -> list[int]:
        """C_FindObjects: at most `limit` handles."""
        found: list[int] = []
        with _attributes(template) as attributes:
            _check("C_FindObjectsInit", self.C_FindObjectsInit(session, attributes, len(template)))
        try:
            handles = ffi.new("CK_ULONG[]", _FIND_BATCH)
            count = ffi.new(_ULONG_POINTER)
            while len(found) < limit:
                _check(
                    "C_FindObjects",
                    self.C_FindObjects(session, handles, min(_FIND_BATCH, limit - len(found)), count),
                )
                if count[0] == 0:
                    break
                found += [handles[i] for i in range(count[0])]
        finally:
            self.C_FindObjectsFinal(session)
        return found

    def number(self, session: int, handle: int, attribute_type: int) -> int | None:
        """A CK_ULONG attribute; None if the object has none or does not show it."""
        # NSS softokn takes only a buffer of exactly eight bytes for the numbers of a stored key.
        value = self.attribute(session, handle, attribute_type, room=_ULONG_BYTES)
        return None if value is None or len(value) != _ULONG_BYTES else int.from_bytes(value, sys.byteorder)

    def boolean(self, session: int, handle: int, attribute_type: int) -> bool | None:
        """A CK_BBOOL attribute; None if the object has none or does not show it."""
        value = self.attribute(session, handle, attribute_type, room=1)
        return value != b"\0" if value else None

    def attribute(
        self, session: int, handle: int, attribute_type: int, *, room: int = _LONGEST_ATTRIBUTE
    ) -> bytes | None:
        """C_GetAttributeValue for one attribute; None if the object has none or does not show it."""
        value = ffi.new("CK_BYTE[]", room)
        attribute = ffi.new("CK_ATTRIBUTE *", {"type": attribute_type, "pValue": value, "ulValueLen": len(value)})
        result = self.C_GetAttributeValue(session, handle, attribute, 1)
        if result in _ATTRIBUTE_ABSENT:
            return None
        _check("C_GetAttributeValue", result)
        length = attribute.ulValueLen
        # A longer value than there was room for is an error that the module did not report.
        return bytes(ffi.buffer(value, length)) if length <= room else None

    def generate_key(self, session: int, mechanism: int, template: Mapping[int, bytes | bool | int]) -> int:
        """C_GenerateKey: the key's handle."""
        handle = ffi.new(_ULONG_POINTER)
        parameters = ffi.new("CK_MECHANISM *", {"mechanism": mechanism})
        with _attributes(template) as attributes:
            _check("C_GenerateKey", self.C_GenerateKey(session, parameters, attributes, len(template), handle))
        return int(handle[0])

    def generate_key_pair(
        self,
        session: int,
        mechanism: int,
        *,
        public: Mapping[int, bytes | bool | int],
        private: Mapping[int, bytes | bool | int],
    ) -> tuple[int, int]:
        """C_GenerateKeyPair: the handles of the public and of the private key."""
        handles = ffi.new("CK_ULONG[2]")
        parameters = ffi.new("CK_MECHANISM *", {"mechanism": mechanism})
        with _attributes(public) as one, _attributes(private) as other:
            value = self.C_GenerateKeyPair(
                session, parameters, one, len(public), other, len(private), handles, handles + 1
            )
            _check("C_GenerateKeyPair", value)
        return int(handles[0]), int(handles[1])

    def sign(self, session: int, mechanism: int, key: int, data: bytes) -> bytes:
        """C_SignInit and C_Sign."""
        _check("C_SignInit", self.C_SignInit(session, ffi.new("CK_MECHANISM *", {"mechanism": mechanism}), key))
        signature = ffi.new("CK_BYTE[]", _LONGEST_SIGNATURE)
        length = ffi.new(_ULONG_POINTER, _LONGEST_SIGNATURE)
        _check("C_Sign", self.C_Sign(session, ffi.from_buffer("CK_BYTE[]", data), len(data), signature, length))
        return bytes(ffi.buffer(signature, length[0]))

    def destroy_object(self, session: int, handle: int) -> None:
        """C_DestroyObject."""
        _check("C_DestroyObject", self.C_DestroyObject(session, handle))


def _check(function: str, value: int) -> None:
    if value != Ckr.OK:
        raise CkrError(function, value)


def _absent(*_arguments: object) -> int:
    return Ckr.FUNCTION_NOT_SUPPORTED


def _serialised(function: Callable[..., int], lock: Lock) -> Callable[..., int]:
    def call(*arguments: object) -> int:
        with lock:
            return function(*arguments)

    return call


@contextmanager
def _attributes(template: Mapping[int, bytes | bool | int]) -> Iterator[Any]:
    """A CK_ATTRIBUTE array; the values it points to live as long as the context."""
    encoded = [_encoded(value) for value in template.values()]
    values = [ffi.new("CK_BYTE[]", value or b"\0") for value in encoded]
    yield ffi.new(
        "CK_ATTRIBUTE[]",
        [
            {"type": kind, "pValue": value, "ulValueLen": len(raw)}
            for kind, value, raw in zip(template, values, encoded, strict=True)
        ],
    )


def _encoded(value: bytes | bool | int) -> bytes:  # noqa: FBT001 (the three kinds of attribute values)
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"\1" if value else b"\0"
    return bytes(ffi.buffer(ffi.new(_ULONG_POINTER, value)))


def _text(field: Any) -> str:
    return bytes(field).rstrip(b" \0").decode("utf-8", "replace")


def _version(version: Any) -> str:
    return f"{version.major}.{version.minor}"
