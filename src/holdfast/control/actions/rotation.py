"""Rotating a key: a new HSM key behind it, found by every node before it encrypts."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from holdfast.audit.records import Effect
from holdfast.control.action import Action, Installation
from holdfast.control.errors import Conflict, HsmRefused, NotFound
from holdfast.control.explanations import Explanation, Usage
from holdfast.control.keys import find_or_make, hsm_settings, seen
from holdfast.control.lookup import find_generations, find_key
from holdfast.keys.proof import Proof
from holdfast.keys.states import GenerationState, Step
from holdfast.store import rotation
from holdfast.store.reads import KeyRow, Reading
from holdfast.store.transaction import Transaction

_S = GenerationState


class OfKey(Action, frozen=True, kw_only=True):
    """The base of what concerns the generations of one key."""

    keystore: str
    key: str

    def subject(self) -> str:
        """The key's name."""
        return f"key {self.keystore}/{self.key}"

    def keystores(self) -> tuple[str, ...] | None:
        """The key's."""
        return (self.keystore,)

    def generations(self, state: Reading) -> list[KeyRow]:
        """The key's, oldest first. Raises NotFound."""
        return find_generations(state, self.keystore, self.key)

    def effect(self, row: KeyRow, state: GenerationState, **more: Any) -> Effect:
        """One generation comes into another state."""
        after = {"state": state.value, **more}
        before = {"state": row.state.value, **dict.fromkeys(more)}
        return Effect(subject=f"{self.subject()} generation {row.generation}", before=before, after=after)


class PrepareRotation(OfKey, frozen=True, kw_only=True, tag="key rotate prepare"):
    """The next generation is planned: its number, and the label of its HSM key in `hsm`."""

    hsm: str
    label: str

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The generation. Raises NotFound, InUse, AlreadyExists, Refused."""
        rows = self.generations(state)
        rotation.require_plannable(state, self.keystore, self.key, hsm=self.hsm, label=self.label)
        planned = [row for row in rows if row.state is _S.PLANNED]
        if not planned:
            number = rows[-1].generation + 1
            made = {"state": _S.PLANNED.value, "hsm": self.hsm, "label": self.label}
            return (Effect(subject=f"{self.subject()} generation {number}", after=made),)
        (row,) = planned
        if (row.hsm, row.label) == (self.hsm, self.label):
            return ()
        before, after = {"hsm": row.hsm, "label": row.label}, {"hsm": self.hsm, "label": self.label}
        return (Effect(subject=f"{self.subject()} generation {row.generation}", before=before, after=after),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it reaches nobody)
        """Which HSM key it will be."""
        number = len(self.generations(state)) + 1
        return Explanation(
            f"Plan generation {number} of the key {self.key} of the keystore {self.keystore!r}:",
            (f"its HSM key is {self.label!r} in [hsm.{self.hsm}]",),
            ("Nothing encrypts or decrypts with it yet.",),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Reserve both."""
        rotation.plan_generation(transaction, self.keystore, self.key, hsm=self.hsm, label=self.label)


class CheckRotation(OfKey, frozen=True, kw_only=True, tag="key rotate check"):
    """The HSM key of the planned generation is looked at, and every node is asked to look for it.

    `make`: it is made in the HSM if it is not there.
    """

    make: bool = False

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Planned becomes ready; one that is ready already is looked for again. Raises NotFound, Conflict."""
        row = self.coming(state)
        if row.state is _S.READY:
            return (self.effect(row, _S.READY, asked="again"),)
        return (self.effect(row, _S.READY),)

    def coming(self, state: Reading) -> KeyRow:
        """The generation that is to encrypt next. Raises NotFound, Conflict."""
        return coming(self.generations(state))

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it reaches nobody)
        """What is looked for."""
        row = self.coming(state)
        return Explanation(
            f"Look for generation {row.generation} of the key {self.key} of the keystore {self.keystore!r}:",
            (f"its HSM key is {row.label!r} in [hsm.{row.hsm}]",),
            (
                "Every node looks for it, and decrypts with it from then on; none encrypts with it yet.",
                "A node that does not see it has its PKCS#11 library initialised again: requests wait for a moment.",
            ),
        )

    def prepared(self, installation: Installation, given: Any) -> AbstractContextManager[Proof | None]:  # noqa: ARG002 (nothing is)
        """The proof of a planned generation's HSM key, which is made here where it is wanted."""
        return self._proven(installation)

    @contextmanager
    def _proven(self, installation: Installation) -> Iterator[Proof | None]:
        with installation.catalog.reading() as state:
            row = self.coming(state)
        if row.state is _S.READY:
            yield None
            return

        def is_recorded(cka_id: bytes | None) -> bool:
            with installation.catalog.reading() as state:
                ready = [one for one in self.generations(state) if one.state is _S.READY]
            return any((one.label, one.cka_id) == (row.label, cka_id) for one in ready)

        settings = hsm_settings(installation.configuration, row.hsm)
        with find_or_make(settings, row.label, make=self.make, is_recorded=is_recorded) as proof:
            yield proof

    def apply(self, transaction: Transaction, prepared: Any) -> None:
        """Record its canary, and ask the nodes."""
        row = self.coming(transaction)
        if prepared is None:
            rotation.ask_again(transaction, row.generation_id)
            return
        if prepared.canary is None:
            raise HsmRefused(f"the key {row.label!r} may not both encrypt and decrypt", hint="Make another one.")
        rotation.make_ready(transaction, row.generation_id, prepared)

    def evidence(self, prepared: Any) -> tuple[Effect, ...]:
        """What the HSM shows of the key."""
        return () if prepared is None else (Effect(subject=f"the HSM key of {self.subject()}", after=seen(prepared)),)


class ActivateGeneration(OfKey, frozen=True, kw_only=True, tag="key rotate activate"):
    """The ready generation encrypts, the one before it decrypts only."""

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Both states. Raises NotFound, Conflict."""
        rows = self.generations(state)
        row = coming(rows)
        if row.state is not _S.READY:
            raise Conflict(
                f"generation {row.generation} of the key {self.key} is planned, and not ready",
                hint=f"`holdfast key rotate check {self.keystore} {self.key}` looks for its HSM key.",
            )
        return (self.effect(find_key(state, self.keystore, self.key), _S.RETIRED), self.effect(row, _S.ACTIVE))

    def explain(self, state: Reading, usage: Usage) -> Explanation:
        """Who encrypts, and who decrypts."""
        rows = self.generations(state)
        old, new = find_key(state, self.keystore, self.key), coming(rows)
        return Explanation(
            f"Rotate the key {self.key} of the keystore {self.keystore!r} ({usage.last_use(self.keystore)}):",
            (
                f"generation {new.generation} ({new.label!r}) encrypts from now on",
                f"generation {old.generation} ({old.label!r}) decrypts only",
            ),
            (
                "AWS does not notice: the external key id stays, and what was encrypted opens as before.",
                f"Keep {old.label!r} in the HSM: what it has encrypted opens with it alone.",
            ),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Exchange them. Raises InUse while a node has not found it."""
        rotation.activate(transaction, coming(self.generations(transaction)).generation_id)

    def undo(self, effects: Sequence[Effect]) -> str | None:  # noqa: ARG002 (the key says it)
        """Rolling back."""
        return f"key rotate rollback {self.keystore} {self.key}"


class RollBack(OfKey, frozen=True, kw_only=True, tag="key rotate rollback"):
    """The retired generation with the highest number below the active one encrypts again, or the one of `number`."""

    number: int | None = None

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Both states. Raises NotFound."""
        active = find_key(state, self.keystore, self.key)
        return (self.effect(active, _S.RETIRED), self.effect(self.target(state), _S.ACTIVE))

    def target(self, state: Reading) -> KeyRow:
        """The generation that will encrypt. Raises NotFound."""
        active = find_key(state, self.keystore, self.key).generation
        for row in reversed(self.generations(state)):
            wanted = row.generation < active if self.number is None else row.generation == self.number
            if wanted and row.state is _S.RETIRED:
                return row
        raise NotFound(
            f"the key {self.key} has no retired generation to roll back to",
            hint=f"`holdfast key show {self.keystore} {self.key}` shows the states of its generations.",
        )

    def explain(self, state: Reading, usage: Usage) -> Explanation:
        """Who encrypts."""
        active, target = find_key(state, self.keystore, self.key), self.target(state)
        return Explanation(
            f"Roll back the key {self.key} of the keystore {self.keystore!r} ({usage.last_use(self.keystore)}):",
            (
                f"generation {target.generation} ({target.label!r}) encrypts again",
                f"generation {active.generation} ({active.label!r}) decrypts only",
            ),
            ("What either of them encrypted opens as before.",),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Exchange them."""
        rotation.take_step(transaction, self.target(transaction).generation_id, Step.ROLL_BACK)

    def undo(self, effects: Sequence[Effect]) -> str | None:
        """Rolling back to the one that was active."""
        number = effects[0].subject.rpartition(" ")[2]
        return f"key rotate rollback {self.keystore} {self.key} --generation {number}"


def coming(rows: Sequence[KeyRow]) -> KeyRow:
    """The generation that is planned or ready. Raises NotFound."""
    for row in rows:
        if row.state in (_S.PLANNED, _S.READY):
            return row
    name = f"{rows[0].keystore} {rows[0].external_key_id}"
    raise NotFound(
        f"no generation of the key {rows[0].external_key_id} is to come",
        hint=f"`holdfast key rotate prepare {name}` plans one.",
    )
