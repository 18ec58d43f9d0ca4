"""Changes to keystores."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar

from holdfast.audit.records import Effect
from holdfast.control.action import Action
from holdfast.control.explanations import (
    Explanation,
    Usage,
    explain_block,
    explain_change_keystore,
    explain_delete_keystore,
    explain_unblock,
)
from holdfast.control.lookup import find_keystore
from holdfast.store.changes import (
    require_empty,
    require_keystore_free,
    require_prefix_free,
    require_region,
)
from holdfast.store.reads import KeystoreRow, Reading
from holdfast.store.transaction import Transaction
from holdfast.xks.types import UriPathPrefix


class _Some(Action, frozen=True, kw_only=True):
    """`names` None: every keystore that there is when it is applied."""

    names: tuple[str, ...] | None = None

    def subject(self) -> str:
        """The keystores' names."""
        return "every keystore" if self.names is None else f"keystore {', '.join(self.names)}"

    def keystores(self) -> tuple[str, ...] | None:
        """Those that are named."""
        return self.names

    def chosen(self, state: Reading) -> list[KeystoreRow]:
        """Their rows. Raises NotFound."""
        return state.keystores() if self.names is None else [find_keystore(state, name) for name in self.names]


class BlockKeystores(_Some, frozen=True, kw_only=True, tag="keystore block"):
    """Encrypt and Decrypt are refused, until the time `until` if there is one.

    A keystore that is blocked already stays so for the longer time.
    """

    stops: ClassVar[bool] = True
    needs_version: ClassVar[bool] = False
    until: datetime | None = None

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Of those that are open now, or would be open earlier."""
        return tuple(
            Effect(subject=f"keystore {row.name}", before=_block(row), after=_block_until(self.until))
            for row in self.chosen(state)
            if self._blocks_more(row)
        )

    def _blocks_more(self, row: KeystoreRow) -> bool:
        if not row.blocked:
            return True
        return row.blocked_until is not None and (self.until is None or self.until > row.blocked_until)

    def explain(self, state: Reading, usage: Usage | None) -> Explanation:
        """The keystores and their use; a block does not need to know their use."""
        return explain_block([row for row in self.chosen(state) if self._blocks_more(row)], usage, self.until)

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Those that it blocks more, in this one transaction."""
        for row in self.chosen(transaction):
            if self._blocks_more(row):
                transaction.set_blocked(row.name, blocked=True, until=self.until)

    def undo(self, effects: Sequence[Effect]) -> str | None:
        """Unblocking those that were open."""
        return f"keystore unblock {_names(effects)}"


class UnblockKeystores(_Some, frozen=True, kw_only=True, tag="keystore unblock"):
    """Enabled keys serve again."""

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """Of those that are blocked, also where the block has ended by itself."""
        return tuple(
            Effect(subject=f"keystore {row.name}", before=_block(row), after={"blocked": False})
            for row in self.chosen(state)
            if row.blocked
        )

    def explain(self, state: Reading, usage: Usage | None) -> Explanation:
        """The keystores and their use."""
        return explain_unblock([row for row in self.chosen(state) if row.blocked], usage)

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Those that are blocked."""
        for row in self.chosen(transaction):
            if row.blocked:
                transaction.set_blocked(row.name, blocked=False)

    def undo(self, effects: Sequence[Effect]) -> str | None:
        """Blocking those that were blocked, without end."""
        return f"keystore block {_names(effects)}"


class _One(Action, frozen=True, kw_only=True):
    keystore: str

    def subject(self) -> str:
        """The keystore's name."""
        return f"keystore {self.keystore}"

    def keystores(self) -> tuple[str, ...] | None:
        """This one."""
        return (self.keystore,)


class CreateKeystore(_One, frozen=True, kw_only=True, tag="keystore create"):
    """A keystore without keys and credentials at the path prefix `prefix`, for callers of `region` (None: any)."""

    prefix: str
    region: str | None = None

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The keystore. Raises AlreadyExists, Refused."""
        require_keystore_free(state, self.keystore, UriPathPrefix.parse(self.prefix), region=self.region)
        made = {"prefix": self.prefix, "region": self.region}
        return (Effect(subject=f"keystore {self.keystore}", after=made),)

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it is new)
        """Its path and region."""
        path = UriPathPrefix.parse(self.prefix).xks_proxy_uri_path
        return Explanation(
            f"Create the keystore {self.keystore!r}:", (f"URI path {path}, region {self.region or 'any'}",)
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Make it."""
        transaction.create_keystore(self.keystore, UriPathPrefix.parse(self.prefix), region=self.region)

    def undo(self, effects: Sequence[Effect]) -> str | None:  # noqa: ARG002 (its name says it)
        """Deleting it."""
        return f"keystore delete {self.keystore}"


class ChangeKeystore(_One, frozen=True, kw_only=True, tag="keystore set"):
    """Another path prefix or region ("": any); None: as it is."""

    prefix: str | None = None
    region: str | None = None

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """What differs. Raises NotFound, AlreadyExists, Refused."""
        row = find_keystore(state, self.keystore)
        require_region(self.region or None)
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        if self.prefix is not None and self.prefix != row.prefix.value:
            require_prefix_free(state, UriPathPrefix.parse(self.prefix), except_for=self.keystore)
            before["prefix"], after["prefix"] = row.prefix.value, self.prefix
        if self.region is not None and (self.region or None) != row.region:
            before["region"], after["region"] = row.region, self.region or None
        return (Effect(subject=f"keystore {row.name}", before=before, after=after),) if after else ()

    def explain(self, state: Reading, usage: Usage) -> Explanation:
        """What becomes of path and region."""
        path = None if self.prefix is None else UriPathPrefix.parse(self.prefix).xks_proxy_uri_path
        row = find_keystore(state, self.keystore)
        return explain_change_keystore(row, usage, prefix=path, region=self.region)

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Alter both."""
        prefix = None if self.prefix is None else UriPathPrefix.parse(self.prefix)
        transaction.change_keystore(self.keystore, prefix=prefix, region=self.region)

    def undo(self, effects: Sequence[Effect]) -> str | None:
        """Setting what was there."""
        before = effects[0].before
        return f"keystore set {self.keystore}" + "".join(
            f" --{name} '{value or ''}'" for name, value in before.items()
        )


class DeleteKeystore(_One, frozen=True, kw_only=True, tag="keystore delete"):
    """A keystore without keys and live credentials is removed."""

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The keystore and its retired credentials. Raises NotFound, InUse."""
        row = find_keystore(state, self.keystore)
        require_empty(state, self.keystore)
        was = {"prefix": row.prefix.value, "region": row.region, **_block(row)}
        retired = [f"credential {one.access_key_id}" for one in state.credentials(self.keystore)]
        return (
            Effect(subject=f"keystore {row.name}", before=was),
            *(Effect(subject=subject, before={"state": "retired"}) for subject in retired),
        )

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (it has no users)
        """Its path."""
        return explain_delete_keystore(find_keystore(state, self.keystore))

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Remove it."""
        transaction.remove_keystore(self.keystore)


def _block(row: KeystoreRow) -> dict[str, Any]:
    return _block_until(row.blocked_until) if row.blocked else {"blocked": False}


def _block_until(until: datetime | None) -> dict[str, Any]:
    return {"blocked": True} if until is None else {"blocked": True, "until": f"{until:%Y-%m-%dT%H:%M:%SZ}"}


def _names(effects: Sequence[Effect]) -> str:
    return " ".join(effect.subject.removeprefix("keystore ") for effect in effects)
