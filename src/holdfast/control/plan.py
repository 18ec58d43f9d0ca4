"""A plan: one action of one actor with its effects, as one document that has a digest."""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from typing import Any

import msgspec

from holdfast.audit.records import Actor, Effect
from holdfast.control.actions import AnyAction
from holdfast.control.errors import Invalid

FORMAT = "holdfast-plan-1"
_MOST_CHARACTERS = 500
"""Of a reason or a ticket."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What approvers sign the digest of: nothing that is not in it is applied, and it is applied once.

    `id` is the change's. `version` is the catalog's when it was made, None where that is not known. `expires` is when
    an approval comes too late; None: it needs none.
    """

    format: str = FORMAT
    id: str
    action: AnyAction
    actor: Actor
    effects: tuple[Effect, ...]
    version: int | None
    time: datetime
    reason: str = ""
    ticket: str = ""
    expires: datetime | None = None

    @cached_property
    def document(self) -> bytes:
        """The canonical encoding: compact JSON, keys in order."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def digest(self) -> str:
        """The SHA-256 of the document, in hexadecimal."""
        return sha256(self.document).hexdigest()

    @classmethod
    def parse(cls, document: bytes) -> "Plan":
        """A plan as it was stored. Raises ValueError for what this version does not read, or would not write so."""
        plan = msgspec.json.decode(document, type=cls)
        if plan.format != FORMAT or plan.document != document:
            raise ValueError("the plan is not one of this version of Holdfast")
        return plan


def require_line(name: str, text: str) -> None:
    """Raises Invalid for a reason or ticket that no record takes."""
    if len(text) > _MOST_CHARACTERS or not text.isprintable():
        raise Invalid(f"a {name} has at most {_MOST_CHARACTERS} printable characters, in one line")


def same(one: Sequence[Effect], other: Sequence[Effect]) -> bool:
    """Whether these are the same effects, as JSON."""
    return _json(one) == _json(other)


def in_words(effects: Sequence[Effect]) -> list[str]:
    """A line for each effect."""
    return [f"{effect.subject}: {_values(effect)}" for effect in effects]


def _values(effect: Effect) -> str:
    before, after = effect.before, effect.after
    if isinstance(before, dict) and isinstance(after, dict):
        names = [name for name in (*before, *(set(after) - set(before))) if before.get(name) != after.get(name)]
        return ", ".join(f"{name} {_shown(before.get(name))} -> {_shown(after.get(name))}" for name in names)
    if before is None:
        return f"new: {_shown(after)}"
    if after is None:
        return f"removed: {_shown(before)}"
    return f"{_shown(before)} -> {_shown(after)}"


def _shown(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{name} {_shown(part)}" for name, part in value.items() if part is not None)
        case list():
            return " and ".join(map(_shown, value)) or "none"
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)


def _json(effects: Sequence[Effect]) -> bytes:
    return msgspec.json.encode(list(effects), order="sorted")
