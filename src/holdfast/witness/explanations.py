"""What each failure that AWS KMS reports means for the operator of the proxy: cause, where to look, what to do.

KMS's own words are in `xks/kms_errors.py`. The prose is in `explanations.toml`.
"""

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import msgspec

from holdfast.witness.kms_errors import ConnectionErrorCode, Failure
from holdfast.xks.errors import ErrorName


class Explanation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`meaning`: what happened. `look`: where the evidence is. `act`: what to do next."""

    meaning: str
    look: str
    act: str


class _KmsException(Explanation, frozen=True, forbid_unknown_fields=True):
    name: str
    says: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An exception of KMS's own, with no failure of the proxy behind it.

    `says` is the part of its message that distinguishes it from others of that name, if any.
    """

    exception: str
    explanation: Explanation
    says: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    failure: dict[str, Explanation]
    connection_error: dict[ConnectionErrorCode, Explanation]
    other_service: Explanation
    exception: list[_KmsException]


_FILE = msgspec.toml.decode(files("holdfast.witness").joinpath("explanations.toml").read_bytes(), type=_File)


def _failure(text: str) -> ErrorName | Failure:
    return ErrorName(text) if text in set(ErrorName) else Failure(text)


FAILURES: Final = {_failure(name): explanation for name, explanation in _FILE.failure.items()}
"""By errorName of the proxy, or by what happened between KMS and the proxy."""

CONNECTION_ERRORS: Final = _FILE.connection_error
"""By ConnectionErrorCode of DescribeCustomKeyStores."""

OTHER_SERVICE: Final = _FILE.other_service
"""Of an exception with which another AWS service says that it could not use a KMS key."""

REFUSALS: Final = tuple(
    Refusal(each.name, Explanation(each.meaning, each.look, each.act), each.says) for each in _FILE.exception
)
"""Exceptions of KMS's own. No two of one name have the same `says`."""
