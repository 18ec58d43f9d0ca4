"""The states of a key's generations, and the steps between them. Decision 0021 has the reasons.

    planned -> ready -> active <-> retired <-> suspended <-> destroy-pending -> destroyed
    ready, retired -> compromised <-> suspended

The lifecycle is that of NIST SP 800-57 part 1, section 7, with one more state, `ready`: every node can decrypt what
the generation will encrypt, and none encrypts yet. So no node is ever sent a ciphertext that it cannot open.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class GenerationState(StrEnum):
    """What may be done with a generation's HSM key."""

    PLANNED = "planned"
    """Its number and label are reserved. The HSM key need not be there yet."""
    READY = "ready"
    """The HSM key is there and known by its canary. Nodes look for it and decrypt with it."""
    ACTIVE = "active"
    """Encrypts and decrypts. Every external key has exactly one."""
    RETIRED = "retired"
    """Decrypts only."""
    SUSPENDED = "suspended"
    """Does nothing, until it is resumed."""
    COMPROMISED = "compromised"
    """Decrypts only, and never encrypts again."""
    DESTROY_PENDING = "destroy-pending"
    """Does nothing; its waiting period runs, and it can still be kept."""
    DESTROYED = "destroyed"
    """The HSM key is gone, for good."""

    @property
    def decrypts(self) -> bool:
        """Whether nodes open ciphertexts with it."""
        return self in _DECRYPTS

    @property
    def withheld(self) -> bool:
        """Whether it was taken out of use: its ciphertexts are refused, and are not corrupt."""
        return self in _WITHHELD


_DECRYPTS: Final = frozenset(
    {GenerationState.READY, GenerationState.ACTIVE, GenerationState.RETIRED, GenerationState.COMPROMISED}
)
_WITHHELD: Final = frozenset({GenerationState.SUSPENDED, GenerationState.DESTROY_PENDING, GenerationState.DESTROYED})


class Step(StrEnum):
    """What a person, or the schedule, does to one generation."""

    MAKE_READY = "make ready"
    ACTIVATE = "activate"
    ROLL_BACK = "roll back to"
    SUSPEND = "suspend"
    RESUME = "resume"
    COMPROMISE = "mark as compromised"
    PLAN_DESTRUCTION = "plan the destruction of"
    KEEP = "keep"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True)
class Standing:
    """A generation's state. `compromised` stays through suspension: what is resumed then is compromised still."""

    state: GenerationState
    compromised: bool = False


class NotAllowed(Exception):
    """The step does not lead anywhere from the state that the generation is in; says which states it can be in."""


_S = GenerationState
_STEPS: Final[Mapping[Step, tuple[frozenset[GenerationState], GenerationState]]] = {
    Step.MAKE_READY: (frozenset({_S.PLANNED}), _S.READY),
    Step.ACTIVATE: (frozenset({_S.READY}), _S.ACTIVE),
    Step.ROLL_BACK: (frozenset({_S.RETIRED}), _S.ACTIVE),
    Step.SUSPEND: (frozenset({_S.RETIRED, _S.COMPROMISED}), _S.SUSPENDED),
    Step.RESUME: (frozenset({_S.SUSPENDED}), _S.RETIRED),
    Step.COMPROMISE: (frozenset({_S.READY, _S.RETIRED, _S.SUSPENDED}), _S.COMPROMISED),
    Step.PLAN_DESTRUCTION: (frozenset({_S.SUSPENDED}), _S.DESTROY_PENDING),
    Step.KEEP: (frozenset({_S.DESTROY_PENDING}), _S.SUSPENDED),
    Step.DESTROY: (frozenset({_S.DESTROY_PENDING}), _S.DESTROYED),
}
"""From which states, and to which."""


def after(step: Step, number: int, generations: Mapping[int, Standing]) -> dict[int, Standing]:
    """The generations that a step on one of them changes, by number. Raises NotAllowed.

    The one that was active is retired in the step that makes another one active.
    """
    old = generations[number]
    sources, target = _STEPS[step]
    if old.state not in sources or (step is Step.COMPROMISE and old.compromised):
        raise NotAllowed(_refusal(step, number, old))
    changed = {number: _arrived(old, step, target)}
    if target is _S.ACTIVE:
        changed |= {
            other: replace(standing, state=_S.RETIRED)
            for other, standing in generations.items()
            if standing.state is _S.ACTIVE
        }
    return changed


def _arrived(old: Standing, step: Step, target: GenerationState) -> Standing:
    if step is Step.RESUME and old.compromised:
        return Standing(_S.COMPROMISED, compromised=True)
    if step is Step.COMPROMISE:
        # A suspended one stays so: being compromised is no reason to let it decrypt.
        return Standing(_S.SUSPENDED if old.state is _S.SUSPENDED else _S.COMPROMISED, compromised=True)
    return replace(old, state=target)


def _refusal(step: Step, number: int, old: Standing) -> str:
    said = f"generation {number} is {old.state}"
    if step is Step.COMPROMISE and old.compromised:
        return f"{said}, and marked as compromised already"
    if step in (Step.SUSPEND, Step.COMPROMISE) and old.state is _S.ACTIVE:
        return f"{said}: another one must encrypt first, and a disabled key stops at once"
    sources = " or ".join(state for state in GenerationState if state in _STEPS[step][0])
    return f"{said}; to {step} it, it must be {sources}"
