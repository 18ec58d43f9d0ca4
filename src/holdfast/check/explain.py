"""From an exception, a message or a ConnectionErrorCode back to the failures that can stand behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

from holdfast.check.explanations import CONNECTION_ERRORS, FAILURES, Explanation
from holdfast.check.refusals import REFUSALS, Refusal
from holdfast.xks.errors import ErrorName
from holdfast.xks.kms_errors import KMS_ERRORS, ConnectionErrorCode, Failure, KmsError, OperationGroup

_FEWEST_LETTERS = 20
"""In a row, of KMS's message: fewer say nothing."""
_ALIKE = 0.75
_WORD = re.compile(r"[A-Za-z][A-Za-z_]{5,}")
_TOLD_TO_A_CALLER = re.compile(r"(\w+Exception)\W{0,2} when calling|errorCode\W+(\w+)|errorfactory\.(\w+)")
"""What boto3, the AWS CLI and CloudTrail write around the exception that a caller of KMS got."""


@dataclass(frozen=True, slots=True)
class Match:
    """What fits. `kms` is None for a ConnectionErrorCode and for what KMS refuses of its own."""

    name: str
    explanation: Explanation
    kms: KmsError | None


def explain(text: str) -> list[Match]:
    """What `text` can mean; empty if nothing.

    A message decides before an exception's name does, as most failures share KMSInvalidStateException.
    """
    for find in (_by_whole_message, _by_code, _by_part_of_a_message, _by_name, _by_likeness):
        if matches := find(text):
            return matches
    return []


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


def refusal_title(refusal: Refusal) -> str:
    """How a refusal of KMS's own is headed."""
    return f"KMS itself refused: {refusal.exception}" + (f", {refusal.says}" if refusal.says else "")


def _by_whole_message(text: str) -> list[Match]:
    letters = _letters(text)
    refusals = [each for each in REFUSALS if each.says and _letters(each.says) in letters]
    whole = [failure for failure, error in KMS_ERRORS.items() if _letters(error.message) in letters]
    return [_match(failure) for failure in whole] + [_own(each) for each in refusals]


def _by_code(text: str) -> list[Match]:
    words = _words(text)
    return [Match(code, CONNECTION_ERRORS[code], None) for code in ConnectionErrorCode if code.lower() in words]


def _by_part_of_a_message(text: str) -> list[Match]:
    """A log or a console may have cut the message: the one with most letters in a row in common is meant."""
    letters = _letters(text)
    shared = {failure: _in_a_row(letters, _letters(error.message)) for failure, error in KMS_ERRORS.items()}
    most = max(shared.values())
    return [_match(failure) for failure, count in shared.items() if count == most and most >= _FEWEST_LETTERS]


def _by_name(text: str) -> list[Match]:
    words = _words(text)
    told = _TOLD_TO_A_CALLER.search(text)
    if told is not None:
        # CloudTrail writes AccessDenied where an SDK raises AccessDeniedException.
        words.add(f"{next(filter(None, told.groups())).lower().removesuffix('exception')}exception")
    refusals = [_own(each) for each in REFUSALS if each.exception.lower() in words]
    # An errorName of the proxy never reaches a caller of KMS, who sees an exception of KMS's own under that name.
    named = () if told else tuple(f for f in KMS_ERRORS if _names(f, words, text))
    raised = [f for f, error in KMS_ERRORS.items() if words & {name.lower() for name in exceptions(error)}]
    return [_match(failure) for failure in dict.fromkeys((*named, *raised))] + refusals


def _names(failure: ErrorName | Failure, words: set[str], text: str) -> bool:
    return failure.lower() in words or failure == text.strip()


def _match(failure: ErrorName | Failure) -> Match:
    return Match(title(failure), FAILURES[failure], KMS_ERRORS[failure])


def _own(refusal: Refusal) -> Match:
    return Match(refusal_title(refusal), refusal.explanation, None)


def _in_a_row(text: str, message: str) -> int:
    return SequenceMatcher(None, text, message, autojunk=False).find_longest_match().size


def _by_likeness(text: str) -> list[Match]:
    query = _letters(text)
    scores = {
        failure: SequenceMatcher(None, query, _letters(error.message)).ratio()
        for failure, error in KMS_ERRORS.items()
    }
    best = max(scores.values())
    return [_match(failure) for failure, score in scores.items() if score == best and score >= _ALIKE]


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _letters(text: str) -> str:
    # Without spaces: a terminal breaks a line in the middle of a word.
    return "".join(re.findall(r"[a-z0-9]+", text.lower()))
