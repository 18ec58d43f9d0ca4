"""What people say of an external key: whose it is, what it is for, how long it may be used. Pure.

The fields are those of NIST SP 800-152 that the HSM does not know. Requests do not depend on them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

MAX_TAGS: Final = 50
LONGEST_PERIOD: Final = 36_500
"""Days of a usage period."""
LENGTHS: Final[Mapping[str, int]] = {"owner": 128, "description": 512, "external_reference": 256}
"""Characters of each text."""
LONGEST_TAG: Final = 256
_TAG_NAME = re.compile(r"[A-Za-z0-9_.:/@+-]{1,64}")


class Purpose(StrEnum):
    """What an external key is used for. One HSM key has one purpose."""

    XKS_GCM = "xks-gcm"
    """AES-GCM for AWS KMS."""


class BadDescription(ValueError):
    """What is wrong with a text or tag, in a sentence."""


@dataclass(frozen=True, slots=True)
class Cryptoperiod:
    """Days from a generation's activation; None: no end was set.

    NIST SP 800-57 part 1, 5.3: `originator` is the originator-usage period, for which it encrypts, `recipient` the
    recipient-usage period, for which it decrypts.
    """

    originator: int | None = None
    recipient: int | None = None

    def encrypts_until(self, activated_at: datetime | None) -> datetime | None:
        """When another generation should encrypt; None: never."""
        return _end(activated_at, self.originator)

    def decrypts_until(self, activated_at: datetime | None) -> datetime | None:
        """When nothing should need the generation any more; None: never."""
        return _end(activated_at, self.recipient)


@dataclass(frozen=True, slots=True)
class Description:
    """An external key, as people describe it. None: nobody said."""

    purpose: str = Purpose.XKS_GCM
    owner: str | None = None
    description: str | None = None
    external_reference: str | None = None
    cryptoperiod: Cryptoperiod = Cryptoperiod()
    tags: Mapping[str, str] = field(default_factory=dict)


def parse_tag(text: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE. Raises BadDescription."""
    name, _, value = text.partition("=")
    require_tag(name, value)
    return name, value


def require_tag(name: str, value: str) -> None:
    """Raises BadDescription."""
    if not _TAG_NAME.fullmatch(name) or not 1 <= len(value) <= LONGEST_TAG or not value.isprintable():
        raise BadDescription(
            f"{name!r}={value!r} is not a tag: its name has 1 to 64 of A-Z a-z 0-9 _ . : / @ + -, its value 1 to"
            f" {LONGEST_TAG} printable characters"
        )


def require_text(name: str, text: str) -> None:
    """Raises BadDescription for a text of `LENGTHS` that is too long, or is not one line."""
    if len(text) > LENGTHS[name] or not text.isprintable():
        raise BadDescription(
            f"the {name.replace('_', ' ')} has at most {LENGTHS[name]} printable characters, in one line"
        )


def require_period(days: int) -> None:
    """Raises BadDescription."""
    if not 1 <= days <= LONGEST_PERIOD:
        raise BadDescription(f"a usage period has 1 to {LONGEST_PERIOD} days")


def _end(activated_at: datetime | None, days: int | None) -> datetime | None:
    return None if activated_at is None or days is None else activated_at + timedelta(days=days)
