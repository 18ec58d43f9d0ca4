"""From an exception, a message or a ConnectionErrorCode to the failures that can be behind it."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from holdfast.witness.explanations import (
    CONNECTION_ERRORS,
    FAILURES,
    OTHER_SERVICE,
    REFUSALS,
    Explanation,
    Refusal,
)
from holdfast.witness.kms_errors import KMS_ERRORS, ConnectionErrorCode, Failure, KmsError, OperationGroup
from holdfast.xks.errors import ErrorName

_FEWEST_LETTERS = 20
"""In a row, of a message of KMS: fewer prove nothing."""
_WORD = re.compile(r"[A-Za-z][A-Za-z_]{3,}")
_CODE = re.compile(r"""(?:error ?code|code|__type)["']?\s*[:=]\s*["']?(?:[\w.]+[.#])?(\w+)""", re.IGNORECASE)
"""Where CloudTrail, SDKs and the wire write the code of an error, which CloudTrail may shorten (`AccessDenied`)."""
_ERROR_NAME = re.compile(r"""errorName["']?\s*[:=]\s*["']?(\w+)""")
"""The body of an answer of the proxy."""
_OF_A_SERVICE = re.compile("(?:kms(?:key)?|encryptionkey)(.+)")
"""KmsKeyNotFoundException (CloudTrail), KMSInvalidStateFault (DMS), EncryptionKeyNotFoundException (CodeCommit)."""
_OF_A_KEY = re.compile("kms|encryption(?:key|cred)|(?:en|de)cryptionfailure")
_TROUBLE = re.compile(
    "exception|fault|error|fail|invalid|denied|disabled|notfound|accessible|insufficient|malformed|revoked|deletion"
    "|throttl|exceeded"
)
"""What else services call it, in one word with one of the above: InvalidKMSKey (EC2), KMSKeyNotAccessibleFault (RDS),
INACCESSIBLE_ENCRYPTION_CREDENTIALS (the state of a DynamoDB table)."""


@dataclass(frozen=True, slots=True)
class Match:
    """What fits. `kms` is None for a ConnectionErrorCode and for what is no failure of the proxy."""

    name: str
    explanation: Explanation
    kms: KmsError | None


def explain(text: str) -> list[Match]:
    """What `text` can mean; empty if nothing.

    The exception that it names decides, however it is written; the message decides between the failures that share
    an exception. A caller of KMS never sees an errorName of the proxy, so that one counts only on its own.
    """
    words = {word.lower() for word in _WORD.findall(text)}
    # A person may write spaces for the underscores.
    joined = re.sub(r"[\W_]+", "_", f" {text.upper()} ")
    codes = [Match(code, CONNECTION_ERRORS[code], None) for code in ConnectionErrorCode if f"_{code}_" in joined]
    answered = [_match(ErrorName(name)) for name in _ERROR_NAME.findall(text) if name in set(ErrorName)]
    if found := codes or answered:
        return found
    proxys = [_match(failure) for failure in KMS_ERRORS if text.strip().lower() == failure.lower()]
    if raised := [match for name in _exceptions(text) for match in _of_exception(name, text)]:
        return _once([*raised, *proxys])
    return _said(text, REFUSALS) or proxys or _by_message(text) or _of_another_service(text) or _named(words)


def exceptions(error: KmsError) -> set[str]:
    """The KMS exceptions that have this failure behind them, as the spec's row names them."""
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
    """How an exception of KMS's own is headed."""
    alike = sum(other.exception == refusal.exception for other in REFUSALS)
    return f"KMS itself refused: {refusal.exception}" + (f", {refusal.says}" if alike > 1 else "")


_WITH_A_MESSAGE_OF_THE_SPEC: Final = {name for error in KMS_ERRORS.values() for name in exceptions(error)} | {
    "KMSInternalException"
}
"""Exceptions whose message says which failure of the proxy is behind them, if one is."""


def _short(name: str) -> str:
    return name.lower().replace("_", "").removesuffix("exception").removesuffix("fault")


_KNOWN: Final = {
    _short(name): name for name in (*_WITH_A_MESSAGE_OF_THE_SPEC, *(each.exception for each in REFUSALS))
}
_GENERAL: Final = {"Conflict", "Disabled", "Tag", "Throttling", "Validation", "AlreadyExists", "NotFound"}
"""What anything else may say too."""
_SHORTENED: Final = {name.removesuffix("Exception") for name in _KNOWN.values()} - _GENERAL
_WITHOUT_SUFFIX: Final = {name.lower() for name in _KNOWN.values() if not name.endswith("Exception")}
"""Names that never end in Exception, such as `InternalFailure`."""


def _exceptions(text: str) -> list[str]:
    """The exceptions of KMS that the text names, each once, in its order.

    Go, Java, JavaScript, Rust and the others put packages and capitals of their own around the name; other AWS
    services put KMS before it, and may end it otherwise.
    """
    named = [
        _short(word)
        for word in _WORD.findall(text)
        if word.lower().endswith("exception")
        or word in _SHORTENED
        or word.lower() in _WITHOUT_SUFFIX
        or _OF_A_SERVICE.fullmatch(_short(word))
    ]
    named += [_short(code) for code in _CODE.findall(text)]
    found = [_KNOWN.get(name) or _KNOWN.get(_OF_A_SERVICE.sub(r"\1", name)) for name in named]
    return list(dict.fromkeys(name for name in found if name is not None))


def _of_exception(name: str, text: str) -> list[Match]:
    refusals = [each for each in REFUSALS if each.exception == name]
    if said := _said(text, refusals):
        return said
    own = [_own(each) for each in refusals]
    if name not in _WITH_A_MESSAGE_OF_THE_SPEC:
        return own
    raised = [_match(failure) for failure, error in KMS_ERRORS.items() if name in exceptions(error)]
    return _by_message(text) or [*raised, *own]


def _said(text: str, refusals: tuple[Refusal, ...] | list[Refusal]) -> list[Match]:
    letters = _letters(text)
    return [_own(each) for each in refusals if each.says and _letters(each.says) in letters]


def _by_message(text: str) -> list[Match]:
    """The failure whose message has most letters in a row in common: a log or a console may have cut it."""
    letters = _letters(text)
    shared = {failure: _in_a_row(letters, _letters(error.message)) for failure, error in KMS_ERRORS.items()}
    most = max(shared.values())
    return [_match(failure) for failure, count in shared.items() if count == most and most >= _FEWEST_LETTERS]


def _named(words: set[str]) -> list[Match]:
    return [_match(failure) for failure in KMS_ERRORS if failure.lower() in words]


def _of_another_service(text: str) -> list[Match]:
    words = (re.sub("[-_]", "", word.lower()) for word in re.findall(r"[\w-]+", text))
    if not any(_OF_A_KEY.search(word) and _TROUBLE.search(word) for word in words):
        return []
    return [Match("another AWS service could not use a KMS key", OTHER_SERVICE, None)]


def _match(failure: ErrorName | Failure) -> Match:
    return Match(title(failure), FAILURES[failure], KMS_ERRORS[failure])


def _own(refusal: Refusal) -> Match:
    return Match(refusal_title(refusal), refusal.explanation, None)


def _once(matches: list[Match]) -> list[Match]:
    return list({match.name: match for match in matches}.values())


def _in_a_row(text: str, message: str) -> int:
    """Of the letters of `message`, the most that stand together in `text`."""

    def stand(count: int) -> bool:
        return any(message[at : at + count] in text for at in range(len(message) - count + 1))

    # Where so many stand together, fewer do too.
    return bisect_left(range(1, len(message) + 1), True, key=lambda count: not stand(count))


def _letters(text: str) -> str:
    # Without spaces: a terminal breaks a line in the middle of a word.
    return "".join(re.findall(r"[a-z0-9]+", text.lower()))
