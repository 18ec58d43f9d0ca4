"""Which KMS keys an external key serves."""

import shlex
from collections.abc import Sequence
from typing import Any

from holdfast.audit.records import Effect
from holdfast.control.actions.rotation import OfKey
from holdfast.control.errors import Conflict, Invalid
from holdfast.control.explanations import Explanation, Usage, moment
from holdfast.control.usage import by_kms_key
from holdfast.store.reads import Reading
from holdfast.store.rows import KMS_KEY_ARN
from holdfast.store.transaction import Transaction
from holdfast.store.usage import OTHERS, usage_of
from holdfast.xks.types import ExternalKeyId

MOST = 16
"""KMS keys that one external key is pinned to. KMS wants one."""


class _Pins(OfKey, frozen=True, kw_only=True):
    kms_keys: tuple[str, ...]

    def pinned(self, state: Reading) -> tuple[str, ...]:
        """What it is pinned to now; empty: to nothing. Raises NotFound."""
        return self.generations(state)[0].pinned_to

    def effects(self, state: Reading) -> tuple[Effect, ...]:
        """The KMS keys that it serves; None: every one. Raises NotFound, Conflict, Invalid."""
        for arn in self.kms_keys:
            if not KMS_KEY_ARN.fullmatch(arn):
                raise Invalid(
                    f"{arn!r} is not the ARN of a KMS key",
                    hint="Write it as KMS names the key, not an alias: arn:aws:kms:REGION:ACCOUNT:key/ID.",
                )
        old, new = self.pinned(state), self.wanted(state)
        if len(new) > MOST:
            raise Conflict(f"a key is pinned to at most {MOST} KMS keys", hint="KMS wants one key for each.")
        if set(old) == set(new):
            return ()
        before, after = {"kms_keys": sorted(old) or None}, {"kms_keys": sorted(new) or None}
        return (Effect(subject=self.subject(), before=before, after=after),)

    def wanted(self, state: Reading) -> tuple[str, ...]:
        """The KMS keys that it is to serve; empty: every one. Raises Conflict."""
        raise NotImplementedError

    def explain(self, state: Reading, usage: Usage) -> Explanation:
        """Which KMS keys were seen, and which of them are refused afterwards."""
        wanted = self.wanted(state)
        seen = {
            arn: use
            for (_, _, arn), use in by_kms_key(usage_of(state, self.keystore, self.key)).items()
            if arn != OTHERS
        }
        lines = [f"it serves {arn} only" for arn in wanted] or ["it serves every KMS key"]
        for arn, use in seen.items():
            fate = "served" if not wanted or arn in wanted else "REFUSED from then on"
            lines.append(f"seen: {arn}, last used {moment(use.last_served, usage.now)}: {fate}")
        return Explanation(
            f"{'Pin' if wanted else 'Unpin'} the key {self.key} of the keystore {self.keystore!r}:",
            tuple(lines),
            (
                "Requests for other KMS keys get AccessDeniedException within a second.",
                "KMS says which KMS key a request is for. Whoever else has the credential can say anything.",
            )
            if wanted
            else ("Within a second whoever has the credential may use it for any KMS key.",),
        )

    def apply(self, transaction: Transaction, prepared: Any) -> None:  # noqa: ARG002 (nothing is)
        """Set it."""
        wanted = sorted(self.wanted(transaction))
        transaction.pin_key(self.keystore, ExternalKeyId.parse(self.key), wanted)

    def undo(self, effects: Sequence[Effect]) -> str | None:
        """What it was pinned to before."""
        before = effects[0].before["kms_keys"] or []
        after = effects[0].after["kms_keys"] or []
        command = "pin" if before and (not after or set(before) < set(after)) else "unpin"
        named = [arn for arn in before if command == "pin" or arn not in after]
        return " ".join(
            [f"key {command} {self.keystore} {self.key}", *(f"--kms-key {shlex.quote(arn)}" for arn in named)]
        )


class PinKey(_Pins, frozen=True, kw_only=True, tag="key pin"):
    """It serves these KMS keys only. What is pinned can be narrowed, not widened."""

    def wanted(self, state: Reading) -> tuple[str, ...]:
        """These. Raises Conflict for one that a pinned key does not serve."""
        old, new = self.pinned(state), tuple(dict.fromkeys(self.kms_keys))
        added = [arn for arn in new if old and arn not in old]
        if added:
            raise Conflict(
                f"the key {self.key} is pinned to {' and '.join(old)}, and would serve another KMS key",
                hint=f"To serve one more: `holdfast key unpin {self.keystore} {self.key} --kms-key {added[0]}`.",
            )
        return new


class UnpinKey(_Pins, frozen=True, kw_only=True, tag="key unpin"):
    """A pinned key serves these KMS keys too; without any, every KMS key."""

    def wanted(self, state: Reading) -> tuple[str, ...]:
        """Those that it serves and these; none: every one."""
        old = self.pinned(state)
        return tuple(dict.fromkeys((*old, *self.kms_keys))) if old and self.kms_keys else ()
