"""Changes to the catalog as a whole."""

from hashlib import sha256
from typing import Any

from holdfast.audit.records import Effect
from holdfast.control.action import Action
from holdfast.control.explanations import Explanation, Usage
from holdfast.store.reads import Reading
from holdfast.store.transaction import Transaction
from holdfast.store.transfer import Export, require_nothing


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
