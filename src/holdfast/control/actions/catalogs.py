"""Changes to the catalog as a whole."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from holdfast.audit.records import Effect
from holdfast.control.action import Action
from holdfast.control.errors import NotFound
from holdfast.control.explanations import Explanation, Usage
from holdfast.store.integrity import Deviation
from holdfast.store.reads import Reading
from holdfast.store.repairs import deviations, keystore_names, require_revertible
from holdfast.store.transaction import Transaction
from holdfast.store.transfer import Export, require_nothing


class _Decision(Action, frozen=True, kw_only=True):
    """About `entries`, such as `key/17`, that are not as recorded."""

    entries: tuple[str, ...]

    def subject(self) -> str:
        """Their names."""
        return f"catalog {', '.join(self.entries)}".rstrip()

    def keystores(self) -> tuple[str, ...] | None:
        """Every one: an entry may have been moved from one to another."""
        return None

    def chosen(self, found: Sequence[Deviation]) -> list[Deviation]:
        """Those of all deviations that are named. Raises NotFound for one that is as recorded."""
        by_name = {one.name: one for one in found}
        unknown = [name for name in self.entries if name not in by_name]
        if unknown:
            raise NotFound(
                f"{unknown[0]} is no entry of the catalog that differs from what is recorded",
                hint="`holdfast catalog show` names those that do.",
            )
        return [by_name[name] for name in self.entries]

    def differences(self, state: Reading, found: Sequence[Deviation]) -> list[tuple[str, Deviation]]:
        """Each that is chosen, with what people call it."""
        names = keystore_names(state)
        return [(f"{one.name}, {one.title(names)}", one) for one in self.chosen(found)]


class AcceptEntries(_Decision, frozen=True, kw_only=True, tag="catalog accept"):
    """What lies in the rows now is taken for recorded. Without `entries`: all that differ."""

    entries: tuple[str, ...] = ()

    def chosen(self, found: Sequence[Deviation]) -> list[Deviation]:
        """Those that are named, or all."""
        return super().chosen(found) if self.entries else list(found)

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Each entry that differs: as recorded, as found. Raises NotFound."""
        found, mismatch = deviations(state)
        made = [
            Effect(subject=subject, before=_side(one, 1), after=_side(one, 2))
            for subject, one in self.differences(state, found)
        ]
        if mismatch is not None and not self.entries:
            made.append(Effect(subject="catalog digest", before=mismatch, after="that of what is recorded"))
        return tuple(made)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it may concern any)
        """What becomes right."""
        found, _ = deviations(state)
        changes = [f"{subject}: {one.words()}" for subject, one in self.differences(state, found)]
        return Explanation(
            "Accept what was changed in the database without a record:",
            tuple(changes) or ("the recorded entries, although they do not add up to the latest record",),
            ("Nodes serve it from then on. The record names what it was before.",),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Take them for recorded."""
        found, _ = deviations(transaction)
        transaction.accept_entries(self.chosen(found), all_of_them=not self.entries)


class RevertEntries(_Decision, frozen=True, kw_only=True, tag="catalog revert"):
    """What is recorded is put back into the rows."""

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Each entry that differs: as found, as recorded. Raises NotFound, Refused."""
        found, _ = deviations(state)
        chosen = self.differences(state, found)
        for _, one in chosen:
            require_revertible(one)
        return tuple(Effect(subject=subject, before=_side(one, 2), after=_side(one, 1)) for subject, one in chosen)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it may concern any)
        """What is put back."""
        found, _ = deviations(state)
        return Explanation(
            "Put back what is recorded, over what was changed in the database:",
            tuple(f"{subject}: {one.words()}" for subject, one in self.differences(state, found)),
            ("What was closed by hand in these entries, and not by a command, is open again.",),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Put them back."""
        found, _ = deviations(transaction)
        transaction.revert_entries(self.chosen(found))


def _side(one: Deviation, side: int) -> dict[str, Any] | None:
    """What is recorded (1), or found (2), where they differ; None: it is not there."""
    if (one.recorded if side == 1 else one.found) is None:
        return None
    return {difference[0]: difference[side] for difference in one.differences()}


class ImportCatalog(Action, frozen=True, kw_only=True, tag="catalog import"):
    """An export fills an empty catalog."""

    document: Export

    def subject(self) -> str:
        """The catalog."""
        return "catalog"

    def keystores(self) -> tuple[str, ...] | None:
        """Every one."""
        return None

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """What comes in. Raises InUse."""
        require_nothing(state)
        document = self.document
        made = {
            "version": document.version,
            "keystores": len(document.keystores),
            "keys": self._keys(),
            "operators": len(document.operators),
            "sha256": sha256(document.to_json()).hexdigest(),
        }
        return (Effect(subject="catalog", after=made),)

    def _keys(self) -> int:
        return sum(len(keystore.keys) for keystore in self.document.keystores)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it is empty)
        """What comes in, and what does not."""
        document = self.document
        return Explanation(
            f"Import version {document.version} of a catalog:",
            (
                f"keystores: {len(document.keystores)}, keys: {self._keys()}",
                f"exported at {document.exported_at:%Y-%m-%d %H:%M} UTC",
            ),
            (
                "Encryption counts are those of the export: no proxy may have used the keys since.",
                "The secrets are not in it: `secrets_directory` of [catalog] must hold their files.",
            ),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Read it in. Raises Refused."""
        transaction.import_(self.document)
