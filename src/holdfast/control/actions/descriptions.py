"""What people say of a key: owner, tags, cryptoperiod."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import msgspec

from holdfast.audit.records import Effect
from holdfast.control.actions.rotation import OfKey
from holdfast.control.errors import Invalid
from holdfast.control.explanations import Explanation, Usage
from holdfast.control.lookup import find_key
from holdfast.keys.description import (
    MAX_TAGS,
    BadDescription,
    Description,
    require_period,
    require_tag,
    require_text,
)
from holdfast.store.descriptions import describe
from holdfast.store.reads import Reading
from holdfast.store.transaction import Transaction

_TEXTS = ("owner", "description", "external_reference")
_OPTIONS = {
    "owner": "--owner",
    "description": "--description",
    "external_reference": "--reference",
    "originator_days": "--cryptoperiod",
    "recipient_days": "--recipient-period",
}


class DescribeKey(OfKey, frozen=True, kw_only=True, tag="key describe"):
    """What is None stays. An empty text, a period of 0 days and a tag without a value are removed."""

    in_snapshot: ClassVar[bool] = False
    owner: str | None = None
    description: str | None = None
    external_reference: str | None = None
    originator_days: int | None = None
    recipient_days: int | None = None
    tags: dict[str, str | None] = msgspec.field(default_factory=dict)

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """What is said otherwise then. Raises NotFound, Invalid."""
        try:
            self._require_valid()
        except BadDescription as bad:
            raise Invalid(str(bad), hint="`holdfast key describe --help` shows what can be said.") from None
        old = _values(find_key(state, self.keystore, self.key).description)
        new = self._changed(old)
        if sum(name.startswith(_TAG) for name in new) > MAX_TAGS:
            raise Invalid(f"a key has at most {MAX_TAGS} tags", hint="Remove one: --untag NAME.")
        originator, recipient = new.get("originator_days"), new.get("recipient_days")
        if originator is not None and recipient is not None and recipient < originator:
            raise Invalid(
                f"it would encrypt for {originator} days and decrypt for {recipient}: what it encrypts last could not"
                " be read",
                hint="Give --recipient-period at least as much as --cryptoperiod.",
            )
        names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        if not names:
            return ()
        before, after = ({name: values.get(name) for name in names} for values in (old, new))
        return (Effect(subject=self.subject(), before=before, after=after),)

    def _require_valid(self) -> None:
        for name in _TEXTS:
            require_text(name, getattr(self, name) or "")
        for days in (self.originator_days, self.recipient_days):
            if days:
                require_period(days)
        for name, value in self.tags.items():
            require_tag(name, "-" if value is None else value)

    def _changed(self, old: dict[str, Any]) -> dict[str, Any]:
        """All values as they will be; what is empty is left out."""
        said = {name: getattr(self, name) for name in _OPTIONS if getattr(self, name) is not None}
        tags = {f"{_TAG}{name}": value for name, value in self.tags.items()}
        return {name: value for name, value in (old | said | tags).items() if value}

    def explain(self, state: Reading, usage: Usage) -> Explanation:  # noqa: ARG002 (no request depends on it)
        """That nothing else changes."""
        return Explanation(
            f"Describe the key {self.key} of the keystore {self.keystore!r}:", tuple(_words(self.effects(state)))
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Set it."""
        said = {name: getattr(self, name) or None for name in _OPTIONS if getattr(self, name) is not None}
        describe(transaction, self.keystore, self.key, values=said, tags=self.tags)

    def undo(self, effects: Sequence[Effect]) -> str | None:
        """Describing it as before."""
        options = [_option(name, value) for effect in effects for name, value in effect.before.items()]
        return f"key describe {self.keystore} {self.key} {' '.join(options)}"


_TAG = "tag "


def _values(found: Description) -> dict[str, Any]:
    """By the names of effects; what nobody said is left out."""
    values = {
        **{name: getattr(found, name) for name in _TEXTS},
        "originator_days": found.cryptoperiod.originator,
        "recipient_days": found.cryptoperiod.recipient,
        **{f"{_TAG}{name}": value for name, value in found.tags.items()},
    }
    return {name: value for name, value in values.items() if value is not None}


def _option(name: str, value: Any) -> str:
    if name.startswith(_TAG):
        tag = name.removeprefix(_TAG)
        return f"--untag {tag}" if value is None else f"--tag {shlex.quote(f'{tag}={value}')}"
    if name in _TEXTS:
        return f"{_OPTIONS[name]} {shlex.quote(value or '')}"
    return f"{_OPTIONS[name]} {f'{value}d' if value else 'none'}"


def _words(effects: Sequence[Effect]) -> Iterator[str]:
    for effect in effects:
        for name, value in effect.after.items():
            yield f"{name.replace('_', ' ')}: {effect.before[name] or 'none'} -> {value or 'none'}"
