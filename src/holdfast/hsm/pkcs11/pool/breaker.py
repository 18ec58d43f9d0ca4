"""What is believed of an HSM at this moment, and who is refused because of it."""

from threading import Event, Lock
from time import monotonic

from holdfast.hsm.faults import HsmFault


class Breaker:
    """Written by whoever meets a fault, closed by the health monitor alone; read for each request.

    While it is open, `refusal` is what every caller gets at once. `last_error` (monotonic seconds, sentence) shows in
    the health for a while. `doubt` is set when the HSM is to be probed at once.
    """

    def __init__(self) -> None:
        self.refusal: HsmFault | None = None
        self.last_error: tuple[float, str] | None = None
        self.doubt = Event()
        self._final = False
        self._lock = Lock()

    def suspect(self, fault: HsmFault) -> None:
        """A call met what looks like the device's fault: remember it, and probe at once."""
        self.last_error = (monotonic(), fault.message)
        self.doubt.set()

    def open(self, fault: HsmFault, *, for_good: bool = False) -> None:
        """Refuse every caller, `for_good`: whatever is found out later."""
        with self._lock:
            if not self._final:
                self.refusal, self._final = fault, for_good

    def close(self) -> None:
        """Let callers in again."""
        with self._lock:
            if not self._final:
                self.refusal = None

    def check(self) -> None:
        """Raises the fault for which it is open."""
        refusal = self.refusal
        if refusal is not None:
            raise type(refusal)(refusal.message, cause=refusal.cause)
