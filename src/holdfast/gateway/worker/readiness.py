"""Has the HSMs open the canaries of generations that are to encrypt next, before any node encrypts with them."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from holdfast.hsm.faults import HsmFault, KeyNotFound
from holdfast.hsm.port import Hsm, KeyLocator, Timing

_PATIENCE: Final = 2.0
"""Seconds for one look at an HSM."""
_RELOAD: Final = 5.0
"""Seconds for another C_Initialize, after which a key that was made meanwhile can be seen."""
_AGAIN: Final = 1.0
"""Seconds between two looks at an HSM that does not work."""
_STEP: Final = 0.05


@dataclass(frozen=True, slots=True)
class ReadyGeneration:
    """A generation in the state `ready`, as of the `looks`-th time that the nodes were asked to look for its key."""

    id: int
    looks: int
    hsm: str
    key: KeyLocator


class Readiness:
    """Belongs to the event loop. `found` gets each result: None, or why the canary was not opened."""

    def __init__(
        self,
        hsms: Mapping[str, Hsm],
        *,
        clock: Callable[[], float],
        found: Callable[[ReadyGeneration, str | None], None],
    ) -> None:
        self._hsms = hsms
        self._clock = clock
        self._found = found
        self._looking: dict[ReadyGeneration, asyncio.Task[None]] = {}

    def look(self, ready: frozenset[ReadyGeneration]) -> None:
        """Begin to look for those that were not looked for yet; called whenever there may be new ones."""
        for one in self._looking.keys() - ready:
            self._looking.pop(one).cancel()
        for one in ready - self._looking.keys():
            self._looking[one] = asyncio.get_running_loop().create_task(self._confirm(one))

    async def _confirm(self, wanted: ReadyGeneration) -> None:
        hsm = self._hsms.get(wanted.hsm)
        if hsm is None:
            self._found(wanted, f"its configuration has no [hsm.{wanted.hsm}]")
            return
        said = ""
        reloaded = False
        while True:
            fault = await self._fault(hsm, wanted.key)
            if isinstance(fault, KeyNotFound) and not reloaded:
                # nShield shows the keys that were there at C_Initialize. Once only: it costs requests a moment.
                reloaded = True
                await self._reload(hsm)
                continue
            if fault is None:
                self._found(wanted, None)
                return
            if fault.message != said:
                said = fault.message
                self._found(wanted, said)
            if isinstance(fault, KeyNotFound):
                return  # until somebody asks again
            await asyncio.sleep(_AGAIN)

    async def _fault(self, hsm: Hsm, key: KeyLocator) -> HsmFault | None:
        try:
            await hsm.run(lambda session: session.describe(key), deadline=self._clock() + _PATIENCE, timing=Timing())
        except HsmFault as fault:
            return fault
        return None

    async def _reload(self, hsm: Hsm) -> None:
        epoch, until = hsm.gauges().module_epoch, self._clock() + _RELOAD
        hsm.reload_keys()
        while hsm.gauges().module_epoch == epoch and self._clock() < until:  # noqa: ASYNC110 (no event tells it)
            await asyncio.sleep(_STEP)
