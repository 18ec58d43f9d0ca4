"""docs/reference/conformance-checks.md and kms-errors.md, from the checks and the table of explanations."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from holdfast.witness.check.checks import CATALOGUE, GROUPS
from holdfast.witness.explain import exceptions_text, title
from holdfast.witness.explanations import CONNECTION_ERRORS, FAILURES, REFUSALS
from holdfast.witness.kms_errors import KMS_ERRORS

if TYPE_CHECKING:
    from holdfast.witness.check.finding import Check

_CHECKS_INTRODUCTION = (
    f"The {len(CATALOGUE)} checks of `holdfast check`, in the order in which they run. *MUST* and *KMS* (what KMS "
    "needs though the specification has no keyword for it) fail when violated; *SHOULD* and *ADVICE* (sound "
    "practice that follows from the text) warn. CONF-04, REACH-03, and CERT-02 for an authority given with `--ca`, "
    "are waived by `--local`, for endpoints that are not for KMS. A check is skipped if one that it needs failed, so "
    "that one mistake is reported once.\n"
)
_ERRORS_INTRODUCTION = (
    "KMS reports almost every failure of an external key store as `KMSInvalidStateException`; only the message "
    "differs. `holdfast explain` looks it up here, from an exception, its message, or a ConnectionErrorCode. KMS was "
    "also seen to give these messages under `KMSInternalException`.\n"
)


def conformance_checks() -> str:
    """docs/reference/conformance-checks.md."""
    parts = [
        "# Conformance checks\n",
        _CHECKS_INTRODUCTION,
    ]
    for group, checks in groupby(CATALOGUE, key=lambda check: check.group):
        parts.append(f"## {GROUPS[group]}\n")
        parts += [_check(check) for check in checks]
    return "\n".join(parts)


def kms_errors() -> str:
    """docs/reference/kms-errors.md."""
    parts = [
        "# What AWS KMS's errors mean\n",
        _ERRORS_INTRODUCTION,
        "## Exceptions and messages\n",
    ]
    for failure, error in KMS_ERRORS.items():
        words = FAILURES[failure]
        parts.append(
            f"### {title(failure)[0].upper()}{title(failure)[1:]}\n\n> {error.message}\n\n"
            f"- **Raised as:** {exceptions_text(error)}\n"
            f"- **Meaning:** {words.meaning}\n- **Where to look:** {words.look}\n- **What to do:** {words.act}\n"
        )
    parts.append("## What KMS itself refuses\n")
    for refusal in REFUSALS:
        words = refusal.explanation
        says = f"\n\n> ... {refusal.says} ..." if refusal.says else ""
        parts.append(
            f"### {refusal.exception}{says}\n\n- **Meaning:** {words.meaning}\n- **Where to look:** {words.look}\n"
            f"- **What to do:** {words.act}\n"
        )
    parts.append("## ConnectionErrorCode of DescribeCustomKeyStores\n")
    for code, words in CONNECTION_ERRORS.items():
        parts.append(
            f"### `{code}`\n\n- **Meaning:** {words.meaning}\n- **Where to look:** {words.look}\n"
            f"- **What to do:** {words.act}\n"
        )
    return "\n".join(parts)


def _check(check: Check) -> str:
    needs = f" Needs {', '.join(check.needs)}." if check.needs else ""
    source = check.source
    return (
        f"### {check.id}: {check.title}\n\n*{check.level}.* {check.what_it_does}{needs}\n\n"
        f"**If not:** {check.violation}. {check.remedy}\n\n"
        f"> {source.plain}\n>\n> {source.document}, {source.section}\n"
    )
