"""Stopping a key for an unsafe IV."""

from contextlib import suppress

from holdfast.hsm.faults import IvUnsafe
from holdfast.hsm.pkcs11.iv import IvGuard
from holdfast.hsm.port import KeyLocator


def test_a_key_that_two_sessions_stop_is_passed_on_once() -> None:
    """Also with the same reason, which is then the same object."""
    stopped: list[KeyLocator] = []
    guard = IvGuard(lambda key, _reason: stopped.append(key))
    for _ in range(2):
        with suppress(IvUnsafe):
            guard.stop(KeyLocator("first"), "the IV is all zero")
    assert stopped == [KeyLocator("first")]
