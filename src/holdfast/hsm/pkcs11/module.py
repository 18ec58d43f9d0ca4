"""One loaded library for the whole process: shared by the HSMs behind it, and initialized again when needed."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Condition, Lock
from time import monotonic
from typing import ClassVar, Final

from holdfast.hsm.faults import HsmUnavailable, ModuleFailed
from holdfast.hsm.pkcs11.cryptoki import CkrError, Cryptoki

_LAST_CALLS: Final = 2.0
"""Seconds that `release` waits for threads inside the library."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0


class Presence:
    """Whether one thread is inside the library. Written by that thread only."""

    __slots__ = ("inside",)

    def __init__(self) -> None:
        self.inside = False


class Module:
    """A library after C_Initialize. Two HSM tables that name one library share it.

    C_Finalize while another thread is inside the library is undefined, so every thread announces itself:
    `enter` before, `leave` after. A flag per thread and one for the gate are enough, because each side
    writes its own before it reads the other's.
    """

    _loaded: ClassVar[dict[str, "Module"]] = {}
    _registry: ClassVar[Lock] = Lock()

    def __init__(self, library: str, environment: Mapping[str, str], initialize_string: str | None) -> None:
        self.cryptoki = Cryptoki(library, environment, initialize_string)
        self.epoch = 0
        self._library = library
        self._environment = dict(environment)
        self._users = 0
        self._closed = False
        self._change = Condition()
        self._presences: set[Presence] = set()
        self._initialized = False
        self._well: set[object] = set()
        self._reinitializations: dict[object, tuple[float, float]] = {}

    @classmethod
    def acquire(cls, library: str, environment: Mapping[str, str], initialize_string: str | None) -> "Module":
        """The initialised module. Raises ModuleFailed if it cannot be loaded, CkrError from C_Initialize."""
        path = str(Path(library).resolve()) if "/" in library else library
        with cls._registry:
            module = cls._loaded.get(path)
            if module is None or module._users == 0:  # noqa: SLF001 (its own class)
                module = cls(path, environment, initialize_string)
                module.cryptoki.initialize()
                module._initialized = True
                cls._loaded[path] = module
            module.cryptoki.refuse_in_a_fork()
            module._require_same(environment)
            module._users += 1
            return module

    def _require_same(self, environment: Mapping[str, str]) -> None:
        """A library reads its environment once: two HSM tables that share it cannot want different ones."""
        differing = {name for name, value in environment.items() if self._environment.get(name) != value}
        differing |= self._environment.keys() - environment.keys()
        if differing:
            raise ModuleFailed(
                f"{self._library} is in use by this process already with another environment "
                f"({', '.join(sorted(differing))}): give every HSM of one library the same `environment`"
            )

    def release(self) -> None:
        """Finalize after the last user, unless a thread does not come back from the library."""
        with self._registry:
            self._users -= 1
            if self._users > 0:
                return
            self._closed = True
            if self._all_outside(_LAST_CALLS) and self._initialized:
                self._initialized = False
                self._finalize()

    def is_well(self, hsm: object) -> None:
        """One HSM of the library answers."""
        self._well.add(hsm)
        self._reinitializations.pop(hsm, None)

    def forget_hsm(self, hsm: object) -> None:
        """It is not served any more."""
        self._well.discard(hsm)
        self._reinitializations.pop(hsm, None)

    def may_reinitialize(self, hsm: object, now: float) -> bool:
        """Whether a C_Initialize for the sake of a lost HSM is due now.

        Each one costs every other HSM of the library its sessions: while one of them is well the first comes at
        once, and the following after waits that double up to a minute.
        """
        self._well.discard(hsm)
        if not self._well:
            return True
        due, pause = self._reinitializations.get(hsm, (now, _FIRST_PAUSE))
        if now < due:
            return False
        self._reinitializations[hsm] = (now + pause, min(2 * pause, _LONGEST_PAUSE))
        return True

    def presence(self) -> Presence:
        """A new thread's own."""
        presence = Presence()
        with self._change:
            self._presences.add(presence)
        return presence

    def forget(self, presence: Presence) -> None:
        """The thread ends."""
        with self._change:
            self._presences.discard(presence)

    def enter(self, presence: Presence, deadline: float) -> bool:
        """Whether the thread may call the library; waits until `deadline` (monotonic seconds) for an open gate."""
        while True:
            presence.inside = True
            if not self._closed:
                return True
            presence.inside = False
            with self._change:
                self._change.notify_all()
                if not self._change.wait_for(lambda: not self._closed, timeout=max(0.0, deadline - monotonic())):
                    return False

    def leave(self, presence: Presence) -> None:
        """The thread is outside again."""
        presence.inside = False
        if self._closed:
            with self._change:
                self._change.notify_all()

    def reinitialize(self, seen_epoch: int, *, patience: float) -> None:
        """C_Finalize and C_Initialize, unless another thread has done so since `seen_epoch`; the caller is outside.

        `patience` in seconds: how long to wait for the threads inside. Raises HsmUnavailable if they stay, or if
        another thread is at it, and CkrError from C_Initialize.
        """
        with self._change:
            if self.epoch != seen_epoch and self._initialized:
                return
            if self._closed:
                raise HsmUnavailable("the module is being initialized again")
            self._closed = True
        try:
            if not self._all_outside(patience):
                raise HsmUnavailable(
                    "a C_ call has not returned, and the module cannot be initialized again before it has"
                )
            if self._initialized:
                self._initialized = False
                self._finalize()
            self.epoch += 1
            self.cryptoki.initialize(again=True)
            self._initialized = True
        finally:
            with self._change:
                self._closed = False
                self._change.notify_all()

    def _finalize(self) -> None:
        # A module that has lost its device reports that here too (Proteccio does), and has still let go.
        with suppress(CkrError):
            self.cryptoki.finalize()

    def _all_outside(self, patience: float) -> bool:
        with self._change:
            return self._change.wait_for(
                lambda: not any(presence.inside for presence in self._presences), timeout=patience
            )
