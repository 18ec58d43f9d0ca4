"""What proves a key generation and what stops it."""

from typing import Any

from holdfast.keys.proof import Proof
from holdfast.store import schema
from holdfast.store.changes import proof_values
from holdfast.store.errors import NotFound
from holdfast.store.writing import Writing


class GenerationChanges(Writing):
    """Changes to generations, by their row's id (`Generation.id`). They raise CatalogError."""

    def replace_canary(self, generation_id: int, canary: bytes | None) -> None:
        """Keep another canary, or none: the next use then makes one. Raises NotFound."""
        self._require(generation_id, canary=canary)

    def count_encryptions(self, generation_id: int, count: int) -> None:
        """Add encryptions that were made beside the nodes. Raises NotFound."""
        reserved = schema.key_generations.c.encryptions_reserved
        self._require(generation_id, encryptions_reserved=reserved + count)

    def release_generation(self, generation_id: int) -> None:
        """End a stop. Raises NotFound."""
        self._require(generation_id, stopped_at=None, stopped_reason=None)

    def rebind_generation(self, generation_id: int, *, label: str, proof: Proof) -> None:
        """Find the generation's key by another label or CKA_ID. Raises NotFound. The HSM is not asked.

        The canary stays; what the proof does not know of the key stays too.
        """
        values = {name: value for name, value in proof_values(proof).items() if value is not None}
        values.pop("canary", None)
        self._require(generation_id, label=label, **{**values, "cka_id": proof.cka_id})

    def change_generation(self, generation_id: int, *conditions: Any, **values: object) -> bool:
        """Set columns of a generation, if it is one that meets the conditions."""
        table = schema.key_generations
        return bool(self.alter(table, table.c.id == generation_id, *conditions, **values))

    def _require(self, generation_id: int, **values: object) -> None:
        if not self.change_generation(generation_id, **values):
            raise NotFound(f"there is no key generation {generation_id} in the catalog")
