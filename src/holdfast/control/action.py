"""A change as data: what it is called, what it alters, how it is made.

An action is asked for its effects twice: for the plan that a person reads, and once more inside the transaction that
applies it. Only if both are the same is it applied. A stop is the exception: it is applied to what is there then.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from holdfast.audit.records import Effect
    from holdfast.config.model import Configuration
    from holdfast.control.explanations import Explanation, Usage
    from holdfast.store.reads import Reading
    from holdfast.store.store import Catalog
    from holdfast.store.transaction import Transaction


class Installation(Protocol):
    """What an action may need beside the catalog's transaction."""

    @property
    def configuration(self) -> Configuration:
        """What is installed."""

    @property
    def catalog(self) -> Catalog:
        """To find out what became of a transaction that failed."""

    @property
    def now(self) -> Callable[[], datetime]:
        """The clock."""


class Action(msgspec.Struct, frozen=True, kw_only=True, tag_field="action"):
    """The base of all actions. The tag is the command's name, as in `keystore block`.

    `stops`: it only makes stricter, so it waits for nobody and no plan of it is out of date. `in_snapshot`: it
    changes what a Snapshot holds, so it makes a new version of the catalog. `needs_version`: not without one.
    """

    stops: ClassVar[bool] = False
    in_snapshot: ClassVar[bool] = True
    needs_version: ClassVar[bool] = True

    @classmethod
    def name(cls) -> str:
        """The command's name."""
        return str(cls.__struct_config__.tag)

    def kinds(self) -> tuple[str, ...]:
        """The names under which rules and policies know it."""
        return (self.name(),)

    def subject(self) -> str:
        """What it changes, in two or three words."""
        raise NotImplementedError

    def keystores(self) -> tuple[str, ...] | None:
        """The keystores that it concerns, for rules; empty: none in particular, None: every one."""
        raise NotImplementedError

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """What it would alter, in values that JSON has; empty if everything is so already.

        Raises CatalogError, ControlError where it cannot be done.
        """
        raise NotImplementedError

    def explain(self, state: Reading, usage: Usage) -> Explanation:
        """What a person reads before it is done."""
        raise NotImplementedError

    def prepared(self, installation: Installation, given: Any) -> AbstractContextManager[Any]:  # noqa: ARG002 (most need none)
        """What is done outside of the catalog, before its transaction, and undone if that fails.

        `given` is what the plan must not hold: a secret that exists already.
        """
        return nullcontext()

    def apply(self, transaction: Transaction, prepared: Any) -> None:
        """Alter what `effects` said. Raises CatalogError."""
        raise NotImplementedError

    def evidence(self, prepared: Any) -> tuple[Effect, ...]:  # noqa: ARG002 (most prepare nothing)
        """What was found outside of the catalog while it was done: the record has it after the plan's effects."""
        return ()

    def undo(self, effects: Sequence[Effect]) -> str | None:  # noqa: ARG002 (most have none)
        """The inverse, as the words after `holdfast`; None: there is none."""
        return None
