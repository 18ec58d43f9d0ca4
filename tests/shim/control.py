"""Builds the shim, sets it up by environment, and works its control file while it runs."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Self, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

Personality = Literal["plain", "nshield", "luna", "cloudhsm", "silent-zero", "nss-strict", "legacy-40-byte"]
PERSONALITIES: Final[tuple[Personality, ...]] = get_args(Personality)

# The rows of CRYPTOKI_FUNCTIONS in cryptoki.h; a test compares the two.
FUNCTIONS: Final = (
    "C_Initialize", "C_Finalize", "C_GetInfo", "C_GetFunctionList", "C_GetSlotList", "C_GetSlotInfo",
    "C_GetTokenInfo", "C_GetMechanismList", "C_GetMechanismInfo", "C_InitToken", "C_InitPIN", "C_SetPIN",
    "C_OpenSession", "C_CloseSession", "C_CloseAllSessions", "C_GetSessionInfo", "C_GetOperationState",
    "C_SetOperationState", "C_Login", "C_Logout", "C_CreateObject", "C_CopyObject", "C_DestroyObject",
    "C_GetObjectSize", "C_GetAttributeValue", "C_SetAttributeValue", "C_FindObjectsInit", "C_FindObjects",
    "C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_EncryptUpdate", "C_EncryptFinal", "C_DecryptInit",
    "C_Decrypt", "C_DecryptUpdate", "C_DecryptFinal", "C_DigestInit", "C_Digest", "C_DigestUpdate",
    "C_DigestKey", "C_DigestFinal", "C_SignInit", "C_Sign", "C_SignUpdate", "C_SignFinal",
    "C_SignRecoverInit", "C_SignRecover", "C_VerifyInit", "C_Verify", "C_VerifyUpdate", "C_VerifyFinal",
    "C_VerifyRecoverInit", "C_VerifyRecover", "C_DigestEncryptUpdate", "C_DecryptDigestUpdate",
    "C_SignEncryptUpdate", "C_DecryptVerifyUpdate", "C_GenerateKey", "C_GenerateKeyPair", "C_WrapKey",
    "C_UnwrapKey", "C_DeriveKey", "C_SeedRandom", "C_GenerateRandom", "C_GetFunctionStatus",
    "C_CancelFunction", "C_WaitForSlotEvent",
)  # fmt: skip

ANY: Final = "any"
"""Stands for every function in `fail`, `delay` and `hang`."""

HSM_WORK: Final = ("C_Encrypt", "C_Decrypt", "C_GenerateRandom")
"""The calls that travel to the HSM in normal operation, and so have its latency."""

DEVICE_ERROR: Final = 0x30
_DEVICE_REMOVED: Final = 0x32
_PIN_INCORRECT: Final = 0xA0
_USER_ALREADY_LOGGED_IN: Final = 0x100
_FOREVER: Final = 0xFFFFFFFF
_LOST_KEEPS_SESSIONS: Final = 1
_LOST_NEEDS_REINIT: Final = 2
_IV_REPEAT: Final = 1
_IV_ZERO: Final = 2
_IV_UNCHANGED: Final = 4
_RANDOM_REPEAT: Final = 8
_RANDOM_ZERO: Final = 16
_OUTPUT_CORRUPT: Final = 1
_OUTPUT_SHORT: Final = 2
_FIND_NOTHING: Final = 4
_ATTRIBUTE_LONG: Final = 8
_MAGIC: Final = b"HFSHIM01"


# ---- building ------------------------------------------------------------------------------------

_HERE: Final = Path(__file__).parent
_COMPILE: Final = (
    "gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread",
)  # fmt: skip


def build(directory: Path) -> Path:
    """Return the shim's library in `directory`, compiled again if a source is newer."""
    sources = sorted(_HERE.glob("*.c"))
    library = directory / "libholdfast-shim.so"
    directory.mkdir(parents=True, exist_ok=True)
    # Two pytest processes may share the directory: one compiles, the other waits and finds it done.
    with (directory / "libholdfast-shim.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        newest = max(path.stat().st_mtime_ns for path in [*sources, *_HERE.glob("*.h")])
        if not library.exists() or library.stat().st_mtime_ns < newest:
            # A process may have the old library mapped: replace the file, never overwrite it.
            fresh = library.with_suffix(".new")
            subprocess.run([*_COMPILE, "-o", str(fresh), *map(str, sources), "-ldl"], check=True)
            fresh.replace(library)
    return library


def environment(  # noqa: PLR0913 - one argument per variable, all but the first by keyword
    personality: Personality,
    *,
    control: ShimControl | Path | None = None,
    token_pin: str | None = None,
    token: str | None = None,
    ocs_token: str | None = None,
    softcard_token: str | None = None,
    modules: Literal[1, 2] = 2,
    load_sharing: bool = False,
    hsm_pool: bool = False,
    fake_login: bool = False,
    assume_single_process: bool = True,
    iv_late: bool = False,
    refuse_null_iv: bool = False,
    no_gcm: bool = False,
    wrapped_module: Path | None = None,
) -> dict[str, str]:
    """Return the variables that make the shim behave so; merge them into the server's environment.

    `token_pin` is the SoftHSM user PIN with which nShield logs in behind the scenes, and the passphrase of
    its cards; `token`, `ocs_token` and `softcard_token` are labels of SoftHSM tokens.  Every variable the
    shim reads is present, so that merging over an older environment leaves nothing of it.
    """
    path = control.path if isinstance(control, ShimControl) else control
    return {
        "HOLDFAST_SHIM_PERSONALITY": personality,
        "HOLDFAST_SHIM_CONTROL": "" if path is None else str(path),
        "HOLDFAST_SHIM_MODULE": "" if wrapped_module is None else str(wrapped_module),
        "HOLDFAST_SHIM_TOKEN_PIN": token_pin or "",
        "HOLDFAST_SHIM_TOKEN": token or "",
        "HOLDFAST_SHIM_OCS_TOKEN": ocs_token or "",
        "HOLDFAST_SHIM_SOFTCARD_TOKEN": softcard_token or "",
        "HOLDFAST_SHIM_NSHIELD_MODULES": str(modules),
        "HOLDFAST_SHIM_IV_LATE": _switch(iv_late),
        "HOLDFAST_SHIM_REFUSE_NULL_IV": _switch(refuse_null_iv),
        "HOLDFAST_SHIM_NO_GCM": _switch(no_gcm),
        "CKNFAST_LOADSHARING": _switch(load_sharing),
        "CKNFAST_HSM_POOL": _switch(hsm_pool),
        "CKNFAST_FAKE_ACCELERATOR_LOGIN": _switch(fake_login),
        "CKNFAST_ASSUME_SINGLE_PROCESS": _switch(assume_single_process),
    }


def _switch(on: bool) -> str:  # noqa: FBT001 - turns exactly this into text
    return "1" if on else "0"


# ---- the control file ----------------------------------------------------------------------------


class _Rule(ctypes.LittleEndianStructure):
    """`struct rule` of shim.h."""

    fail_rv: int
    fail_times: int
    delay_us: int
    hang: int
    _fields_: ClassVar = [(name, ctypes.c_uint32) for name in ("fail_rv", "fail_times", "delay_us", "hang")]


class _Control(ctypes.LittleEndianStructure):
    """`struct control` of shim.h, field for field; ctypes writes each aligned field in one store."""

    magic: bytes
    size: int
    function_count: int
    lost_rv: int
    lost_flags: int
    lost_until_ns: int
    session_epoch: int
    reinit_epoch: int
    reinit_rv: int
    session_limit: int
    iv_faults: int
    output_faults: int
    lost_slot: int
    rules: ctypes.Array[_Rule]
    inside: int
    inside_high: int
    sessions: int
    sessions_high: int
    bytes_in: int
    bytes_out: int
    finalized_while_inside: int
    calls: ctypes.Array[ctypes.c_uint64]
    _fields_: ClassVar = [
        ("magic", ctypes.c_char * 8),
        ("size", ctypes.c_uint32),
        ("function_count", ctypes.c_uint32),
        ("lost_rv", ctypes.c_uint32),
        ("lost_flags", ctypes.c_uint32),
        ("lost_until_ns", ctypes.c_uint64),
        ("session_epoch", ctypes.c_uint32),
        ("reinit_epoch", ctypes.c_uint32),
        ("reinit_rv", ctypes.c_uint32),
        ("session_limit", ctypes.c_uint32),
        ("iv_faults", ctypes.c_uint32),
        ("output_faults", ctypes.c_uint32),
        ("lost_slot", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("rules", _Rule * (1 + len(FUNCTIONS))),
        ("inside", ctypes.c_uint32),
        ("inside_high", ctypes.c_uint32),
        ("sessions", ctypes.c_uint32),
        ("sessions_high", ctypes.c_uint32),
        ("bytes_in", ctypes.c_uint64),
        ("bytes_out", ctypes.c_uint64),
        ("finalized_while_inside", ctypes.c_uint64),
        ("calls", ctypes.c_uint64 * len(FUNCTIONS)),
    ]


class ShimControl:
    """The faults and counters of every process whose HOLDFAST_SHIM_CONTROL is `path`.

    Create it before the server starts.  Faults act from the next call on, and on calls that are waiting.
    On leaving the context everything is released, so that a failing test leaves no hung server.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = ctypes.sizeof(_Control)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._control = _Control.from_buffer(self._memory)
        self._control.size = size
        self._control.function_count = len(FUNCTIONS)
        self._control.magic = _MAGIC

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._memory.closed:
            self.clear_faults()
        self.close()

    def close(self) -> None:
        """Unmap the file; the faults stay as they are."""
        if self._memory.closed:
            return
        del self._control  # mmap refuses to close while a structure points into it
        self._memory.close()

    # ---- time

    def delay(self, milliseconds: float, functions: Iterable[str] = HSM_WORK) -> None:
        """Make each call of `functions` take that much longer, threads side by side; 0 ends it."""
        for function in functions:
            self._rule(function).delay_us = round(milliseconds * 1000)

    def hang(self, function: str = ANY) -> None:
        """Let calls of `function` block until `release`."""
        self._rule(function).hang = 1

    def strand(self, function: str = ANY) -> None:
        """Let calls of `function` block; `release` lets only later ones through."""
        self._rule(function).hang = 2

    def release(self) -> None:
        """Let every hung call go on, and hang no more."""
        for rule in self._control.rules:
            rule.hang = 0

    # ---- failures

    def fail(self, function: str, ckr: int, *, times: int | None = None) -> None:
        """Make the next `times` calls (without it: all calls) of `function` return `ckr` without doing anything.

        Two calls do their work and then report: C_Finalize, because a library that fails there has still let
        go, and C_Login with CKR_USER_ALREADY_LOGGED_IN, because then the login exists.
        """
        rule = self._rule(function)
        rule.fail_times = 0  # disarmed while the code changes
        rule.fail_rv = ckr
        rule.fail_times = _FOREVER if times is None else times

    def succeed(self, function: str = ANY) -> None:
        """End `fail` for `function`."""
        self._rule(function).fail_times = 0

    def failures_left(self, function: str = ANY) -> int | None:
        """Return how many failures are still to come, None for no end."""
        left = self._rule(function).fail_times
        return None if left == _FOREVER else left

    def refuse_login(self, ckr: int = _PIN_INCORRECT, *, times: int | None = None) -> None:
        """Make C_Login fail, by default as with a wrong PIN."""
        self.fail("C_Login", ckr, times=times)

    def lose_login_race(self, *, times: int | None = None) -> None:
        """Make C_Login log in and say that another thread was faster."""
        self.fail("C_Login", _USER_ALREADY_LOGGED_IN, times=times)

    def fail_finalize(self, ckr: int = DEVICE_ERROR, *, times: int | None = None) -> None:
        """Make C_Finalize finalize and report an error."""
        self.fail("C_Finalize", ckr, times=times)

    def fail_initialize(self, times: int, ckr: int = DEVICE_ERROR) -> None:
        """Make the next `times` calls of C_Initialize fail."""
        self.fail("C_Initialize", ckr, times=times)

    # ---- the device and its sessions

    def device_lost(
        self,
        ckr: int = DEVICE_ERROR,
        *,
        keep_sessions: bool = False,
        needs_reinit: bool = False,
        back_after_ms: float | None = None,
        slot: int | None = None,
    ) -> None:
        """Make every call on a session, C_OpenSession and C_Login return `ckr` until `device_back`.

        With `slot` only what concerns that one. On return all old sessions of every slot are invalid unless
        `keep_sessions`; with `needs_reinit` a library that was initialised before the return stays dead until
        C_Finalize and C_Initialize.
        """
        control = self._control
        control.lost_flags = _LOST_KEEPS_SESSIONS * keep_sessions | _LOST_NEEDS_REINIT * needs_reinit
        until = 0 if back_after_ms is None else time.monotonic_ns() + round(back_after_ms * 1_000_000)
        control.lost_until_ns = until
        control.lost_slot = 0 if slot is None else slot + 1
        control.lost_rv = ckr

    def device_removed(self) -> None:
        """Lose the device with CKR_DEVICE_REMOVED."""
        self.device_lost(_DEVICE_REMOVED)

    def device_back(self) -> None:
        """End `device_lost`."""
        control = self._control
        if control.lost_rv == 0:
            return
        control.lost_until_ns = 0
        if control.lost_flags & _LOST_NEEDS_REINIT:
            control.reinit_rv = control.lost_rv
            control.reinit_epoch += 1
        if not control.lost_flags & _LOST_KEEPS_SESSIONS:
            control.session_epoch += 1
        control.lost_rv = 0

    def close_sessions(self) -> None:
        """Invalidate every open session and login, as removing the last operator card does."""
        self._control.session_epoch += 1

    def session_limit(self, limit: int | None) -> None:
        """Make C_OpenSession return CKR_SESSION_COUNT in a process that has `limit` sessions open."""
        self._control.session_limit = 0 if limit is None else limit + 1

    # ---- wrong answers

    def repeat_iv(self, on: bool) -> None:  # noqa: FBT001 - reads as a switch, like those below
        """Make the module's own IV equal to the one before; the first since loading is fresh."""
        self._set_iv_fault(_IV_REPEAT, on)

    def zero_iv(self, on: bool) -> None:  # noqa: FBT001
        """Make the module's own IV all zero."""
        self._set_iv_fault(_IV_ZERO, on)

    def unchanged_iv(self, on: bool) -> None:  # noqa: FBT001
        """Keep the module from writing its IV into the caller's buffer."""
        self._set_iv_fault(_IV_UNCHANGED, on)

    def repeat_random(self, on: bool) -> None:  # noqa: FBT001
        """Make C_GenerateRandom return the same bytes each time, with a period of four bytes."""
        self._set_iv_fault(_RANDOM_REPEAT, on)

    def zero_random(self, on: bool) -> None:  # noqa: FBT001
        """Make C_GenerateRandom return zeros."""
        self._set_iv_fault(_RANDOM_ZERO, on)

    def corrupt_output(self, on: bool) -> None:  # noqa: FBT001
        """Flip the lowest bit of the first byte that C_Encrypt returns."""
        self._set_output_fault(_OUTPUT_CORRUPT, on)

    def short_output(self, on: bool) -> None:  # noqa: FBT001
        """Make C_Encrypt return one byte less: of the IV where that is appended, else of the tag."""
        self._set_output_fault(_OUTPUT_SHORT, on)

    def find_nothing(self, on: bool) -> None:  # noqa: FBT001
        """Make C_FindObjects succeed without an object, as SoftHSM does when it cannot open its files."""
        self._set_output_fault(_FIND_NOTHING, on)

    def long_attributes(self, on: bool) -> None:  # noqa: FBT001
        """Make C_GetAttributeValue succeed with a ulValueLen that is 1 MiB longer than the value."""
        self._set_output_fault(_ATTRIBUTE_LONG, on)

    # ---- counters

    def calls(self) -> dict[str, int]:
        """Return how often each C_ function was entered, those never called left out."""
        counts = {name: int(count) for name, count in zip(FUNCTIONS, self._control.calls, strict=True)}
        return {name: count for name, count in counts.items() if count}

    @property
    def inside(self) -> int:
        """Threads inside the library now, in all processes; a killed process leaves its own behind."""
        return self._control.inside

    @property
    def inside_high(self) -> int:
        """The most threads that were inside at once since `reset_counters`."""
        return self._control.inside_high

    @property
    def sessions(self) -> int:
        """Sessions open now, in all processes; a killed process leaves its own behind."""
        return self._control.sessions

    @property
    def sessions_high(self) -> int:
        """The most sessions that were open at once since `reset_counters`."""
        return self._control.sessions_high

    @property
    def bytes_in(self) -> int:
        """Bytes given to successful C_Encrypt and C_Decrypt."""
        return self._control.bytes_in

    @property
    def bytes_out(self) -> int:
        """Bytes returned by successful C_Encrypt, C_Decrypt and C_GenerateRandom."""
        return self._control.bytes_out

    @property
    def finalized_while_inside(self) -> int:
        """How often C_Finalize came while another thread was inside, which the standard leaves undefined."""
        return self._control.finalized_while_inside

    # ---- starting over

    def reset(self) -> None:
        """End every fault and set every counter to zero."""
        self.clear_faults()
        self.reset_counters()

    def clear_faults(self) -> None:
        """End every fault; a lost device comes back as with `device_back`."""
        for rule in self._control.rules:
            rule.fail_times = 0
            rule.delay_us = 0
            rule.hang = 0
        self.device_back()
        self._control.session_limit = 0
        self._control.iv_faults = 0
        self._control.output_faults = 0

    def reset_counters(self) -> None:
        """Set every counter to zero; what is open or inside now stays counted."""
        control = self._control
        for index in range(len(FUNCTIONS)):
            control.calls[index] = 0
        control.bytes_in = control.bytes_out = control.finalized_while_inside = 0
        control.inside_high = control.inside
        control.sessions_high = control.sessions

    def _rule(self, function: str) -> _Rule:
        return self._control.rules[0 if function == ANY else 1 + FUNCTIONS.index(function)]

    def _set_output_fault(self, fault: int, on: bool) -> None:  # noqa: FBT001
        faults = self._control.output_faults
        self._control.output_faults = faults | fault if on else faults & ~fault

    def _set_iv_fault(self, fault: int, on: bool) -> None:  # noqa: FBT001
        faults = self._control.iv_faults
        self._control.iv_faults = faults | fault if on else faults & ~fault
