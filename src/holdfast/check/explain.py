"""From an exception, a message or a ConnectionErrorCode back to the failures that can stand behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

from holdfast.check.explanations import CONNECTION_ERRORS, FAILURES, Explanation
from holdfast.xks.errors import ErrorName
from holdfast.xks.kms_errors import KMS_ERRORS, ConnectionErrorCode, Failure, KmsError, OperationGroup

_SHORTEST_PART = 12
_ALIKE = 0.75
_WORD = re.compile(r"[A-Za-z][A-Za-z_]{5,}")


@dataclass(frozen=True, slots=True)
class Match:
    """A failure that fits. `kms` is None for a ConnectionErrorCode."""

    name: str
    explanation: Explanation
    kms: KmsError | None


def explain(text: str) -> list[Match]:
    """The failures that `text` can mean; empty if none.

    A message decides before an exception's name does, as most failures share KMSInvalidStateException.
    """
    by_message = [failure for failure, error in KMS_ERRORS.items() if _holds(text, error.message)]
    if by_message:
        return [_match(failure) for failure in by_message]
    words = set(_WORD.findall(text))
    codes = [code for code in ConnectionErrorCode if code in words]
    if codes:
        return [Match(code, CONNECTION_ERRORS[code], None) for code in codes]
    names = [failure for failure in KMS_ERRORS if failure in words or failure == text.strip()]
    if names:
        return [_match(failure) for failure in names]
    by_exception = [failure for failure, error in KMS_ERRORS.items() if words & exceptions(error)]
    return [_match(failure) for failure in by_exception or _alike(text)]


def exceptions(error: KmsError) -> set[str]:
    """The KMS exceptions that carry this failure, as the spec's row names them."""
    return {name for name in (error.key_store, error.create_key, error.cryptographic) if name is not None}


def exceptions_text(error: KmsError) -> str:
    """Those exceptions with the operations that raise them."""
    groups = (
        (error.key_store, OperationGroup.KEY_STORE),
        (error.create_key, OperationGroup.CREATE_KEY),
        (error.cryptographic, OperationGroup.CRYPTOGRAPHIC),
    )
    return "; ".join(f"{name} ({group})" for name, group in groups if name is not None)


def title(failure: ErrorName | Failure) -> str:
    """How a failure is headed: the proxy's errorName, or what happened."""
    return f"the proxy answered {failure}" if isinstance(failure, ErrorName) else str(failure)


def _match(failure: ErrorName | Failure) -> Match:
    return Match(title(failure), FAILURES[failure], KMS_ERRORS[failure])


def _holds(text: str, message: str) -> bool:
    query, whole = _plain(text), _plain(message)
    return whole in query or (len(query) >= _SHORTEST_PART and " " in query and query in whole)


def _alike(text: str) -> list[ErrorName | Failure]:
    query = _plain(text)
    scores = {
        failure: SequenceMatcher(None, query, _plain(error.message)).ratio() for failure, error in KMS_ERRORS.items()
    }
    best = max(scores.values())
    return [failure for failure, score in scores.items() if score == best and score >= _ALIKE]


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))
