"""Keeps the memory of this process, with its PIN and secret access keys, from core dumps and other processes."""

import ctypes
import resource
from contextlib import suppress

_PR_SET_DUMPABLE = 4
"""prctl(2). Also: only root may trace the process or read its memory and descriptors in /proc."""


def forbid_dumps() -> None:
    """No core dump, no ptrace by the same user. Where a sandbox forbids these calls, things stay as they are."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
