"""Changes to credentials. No action holds a secret."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from holdfast.audit.records import Effect
from holdfast.control.action import Action, Installation
from holdfast.control.explanations import Explanation, Usage, explain_retire
from holdfast.control.issue import new_secret
from holdfast.control.lookup import find_credential, find_keystore
from holdfast.store.credentials import require_id_free
from holdfast.store.reads import Reading
from holdfast.store.transaction import Transaction
from holdfast.xks.types import AccessKeyId, SecretAccessKey


class _New(Action, frozen=True, kw_only=True):
    keystore: str
    access_key_id: str

    def subject(self) -> str:
        """The credential and its keystore."""
        return f"credential {self.access_key_id} of {self.keystore}"

    def keystores(self) -> tuple[str, ...] | None:
        """Its keystore."""
        return (self.keystore,)

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The credential. Raises NotFound, AlreadyExists."""
        find_keystore(state, self.keystore)
        require_id_free(state.connection, AccessKeyId.parse(self.access_key_id))
        return (Effect(subject=f"credential {self.access_key_id}", after=self._made()),)

    def _made(self) -> dict[str, Any]:
        return {"keystore": self.keystore, "state": "live"}

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it is new)
        """Whose credential it is."""
        return Explanation(
            f"Issue a credential for the keystore {self.keystore!r}:", (f"its access key id is {self.access_key_id}",)
        )

    def undo(self, effects: Sequence[Effect]) -> str | None:  # noqa: ARG002 (its name says it)
        """Retiring it."""
        return f"credential retire {self.access_key_id}"


class IssueCredential(_New, frozen=True, kw_only=True, tag="credential issue"):
    """Another live credential. Its secret is random unless it is given, and goes into a file of its own."""

    @contextmanager
    def prepared(self, installation: Installation, given: Any) -> Iterator[SecretAccessKey]:  # noqa: ARG002 (alone)
        """The secret access key."""
        yield new_secret() if given is None else given

    def apply(self, transaction: Transaction, prepared: Any) -> None:
        """Write the file, then the row."""
        transaction.issue_credential(self.keystore, (AccessKeyId.parse(self.access_key_id), prepared))


class ReferenceCredential(_New, frozen=True, kw_only=True, tag="credential reference"):
    """A live credential whose secret the operator keeps: `env:NAME` or `credential:NAME`."""

    reference: str

    def kinds(self) -> tuple[str, ...]:
        """For rules it is issued like any other."""
        return ("credential issue", "credential reference")

    def _made(self) -> dict[str, Any]:
        return super()._made() | {"reference": self.reference}

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Write the row. Raises Refused for a reference that it may not have."""
        transaction.reference_credential(self.keystore, AccessKeyId.parse(self.access_key_id), self.reference)


class RetireCredential(Action, frozen=True, kw_only=True, tag="credential retire"):
    """A credential ends, for good."""

    access_key_id: str

    def subject(self) -> str:
        """The access key id."""
        return f"credential {self.access_key_id}"

    def keystores(self) -> tuple[str, ...] | None:
        """None in particular: a rule that names keystores does not know whose it is."""
        return ()

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The credential, unless it is retired. Raises NotFound."""
        row = find_credential(state, self.access_key_id)
        if row.retired_at is not None:
            return ()
        before = {"keystore": row.keystore, "state": "live"}
        return (Effect(subject=self.subject(), before=before, after=before | {"state": "retired"}),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:
        """Whether KMS still uses it."""
        return explain_retire(find_credential(state, self.access_key_id), usage)

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """End it; its secret's file goes after the commit."""
        transaction.retire_credential(AccessKeyId.parse(self.access_key_id))
