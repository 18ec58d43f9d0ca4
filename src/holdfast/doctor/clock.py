"""Doctor on the clock: SigV4 refuses requests whose time is 5 minutes off."""

import ctypes
from collections.abc import Callable, Iterator

from holdfast.finding import Finding, note, ok, warning

_STA_UNSYNC = 0x40
_TIMEX_BYTES = 1024  # struct timex has 208 bytes on 64-bit Linux.
_STATUS_OFFSET = 40
_MAXERROR_OFFSET = 24


def examine_clock(kernel: Callable[[], tuple[int, int] | None] | None = None) -> Iterator[Finding]:
    """Findings on time synchronisation, as the kernel knows it. `kernel` gives (status, maxerror in us) or None."""
    state = (kernel or kernel_clock)()
    if state is None:
        yield note(
            "clock-unknown",
            "clock",
            "the kernel does not say whether the clock is synchronised",
            why="Requests whose x-amz-date is more than 5 minutes off are refused.",
            remedy="Make sure that NTP or chrony keeps this host's clock right.",
        )
        return
    status, maximum_error = state
    if status & _STA_UNSYNC:
        yield warning(
            "clock-unsynchronised",
            "clock",
            "the kernel says that the clock is not synchronised",
            why="Once it is 5 minutes off, every request is refused with AuthenticationFailedException.",
            remedy="Run chrony or systemd-timesyncd (`timedatectl set-ntp true`). In a container: on its host.",
        )
    else:
        yield ok("clock", "clock", f"synchronised; the kernel's bound on the error is {maximum_error / 1000:.0f} ms")


def kernel_clock() -> tuple[int, int] | None:
    """`status` and `maxerror` (microseconds) of ntp_adjtime(2); None where the system does not answer."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
            return None
    except (OSError, AttributeError):
        return None
    maximum_error = ctypes.c_long.from_buffer(buffer, _MAXERROR_OFFSET).value
    return ctypes.c_int.from_buffer(buffer, _STATUS_OFFSET).value, maximum_error
