"""A worker looks for a generation that is ready, and says what it has found."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast.gateway.worker import readiness
from holdfast.gateway.worker.readiness import Readiness, ReadyGeneration
from holdfast.hsm.faults import HsmFault, HsmUnavailable, KeyNotFound, KeyUntrusted
from holdfast.hsm.port import Hsm, HsmGauges, KeyLocator

if TYPE_CHECKING:
    from collections.abc import Sequence

WANTED = ReadyGeneration(7, 1, "main", KeyLocator("second", b"2", b"canary"))


class Scripted:
    """An HSM that answers each look with the next of these: None, or a fault."""

    def __init__(self, answers: Sequence[HsmFault | None]) -> None:
        self.answers = deque(answers)
        self.reloads = 0

    async def run(self, *_: Any, **__: Any) -> None:
        """The next answer."""
        answer = self.answers.popleft()
        if answer is not None:
            raise answer

    def reload_keys(self) -> None:
        """Another C_Initialize, at once."""
        self.reloads += 1

    def gauges(self) -> HsmGauges:
        """With the number of times that it was initialised."""
        return HsmGauges(1, 0, 0, 0, breaker_open=False, module_epoch=self.reloads, encryptions=0, decryptions=0)


def found(*answers: HsmFault | None, ready: tuple[ReadyGeneration, ...] = (WANTED,)) -> tuple[list[Any], Scripted]:
    """What the worker says, until the HSM has no more answers."""
    hsm, said = Scripted(answers), []

    async def look() -> None:
        looking = Readiness(
            {"main": cast("Hsm", hsm)},
            clock=time.monotonic,
            found=lambda generation, fault: said.append((generation.id, fault)),
        )
        for _ in range(3):  # as often as a worker's ticks: each generation is looked for once
            looking.look(frozenset(ready))
        await asyncio.gather(*looking._looking.values())

    asyncio.run(look())
    return said, hsm


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_AGAIN", 0.0)


def test_a_key_that_is_there_is_reported_once() -> None:
    said, hsm = found(None)
    assert (said, hsm.reloads) == ([(7, None)], 0)


def test_a_key_that_shows_after_c_initialize_is_found_by_it() -> None:
    said, hsm = found(KeyNotFound("no such key"), None)
    assert (said, hsm.reloads) == ([(7, None)], 1)


def test_a_key_that_is_not_there_is_reported_after_one_c_initialize() -> None:
    said, hsm = found(KeyNotFound("no such key"), KeyNotFound("no such key"))
    assert (said, hsm.reloads) == ([(7, "no such key")], 1)


def test_an_hsm_that_does_not_work_is_reported_once_and_asked_until_it_does() -> None:
    said, hsm = found(HsmUnavailable("gone"), HsmUnavailable("gone"), KeyUntrusted("another key"), None)
    assert (said, hsm.reloads) == ([(7, "gone"), (7, "another key"), (7, None)], 0)


def test_an_hsm_that_is_not_configured_here_is_reported() -> None:
    said, _ = found(ready=(ReadyGeneration(7, 1, "elsewhere", WANTED.key),))
    assert said == [(7, "its configuration has no [hsm.elsewhere]")]
